"""The REST API over a controller with three hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from sterna.api.app import create_app

from ..controller.conftest import World, world
from .rest import Api

__all__ = ["api", "world"]


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    transport = httpx2.ASGITransport(create_app(world.controller), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://sterna") as http:
        yield Api(world, http)
