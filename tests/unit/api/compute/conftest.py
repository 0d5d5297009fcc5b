"""The Compute API over a controller with three hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ...controller.conftest import World, world
from .cloud import Cloud, make

__all__ = ["cloud", "world"]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[Cloud]:
    made = await make(world)
    async with made.http:
        yield made
