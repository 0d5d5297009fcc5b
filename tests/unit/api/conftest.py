"""The REST API over a controller with three hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ..controller.conftest import World, world
from .clients import client, served
from .rest import Api

__all__ = ["api", "world"]


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with client(served(world.controller), raises=False) as http:
        yield Api(world, http)
