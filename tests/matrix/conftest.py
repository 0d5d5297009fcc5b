"""The agents' own log lines would drown the stories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.matrix.workers import silence


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silent agents, for these tests only."""
    before = structlog.get_config()
    silence()
    yield
    structlog.configure(**before)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each `record_property("counted", line)`."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, line in getattr(report, "user_properties", ()):
                if name == "counted" and report.when == "call":
                    terminalreporter.write_line(line)
