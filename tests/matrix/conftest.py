"""The agents' own log lines would drown the stories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.matrix.crew import silence


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silent agents, for these tests only."""
    before = structlog.get_config()
    silence()
    yield
    structlog.configure(**before)
