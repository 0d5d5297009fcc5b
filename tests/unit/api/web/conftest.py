from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.access import UserRole
from tests.unit.api.clients import served
from tests.unit.api.web.browser import Browser
from tests.unit.controller.conftest import World, world
from tests.unit.controller.operating import Stage

__all__ = ["world"]


@pytest.fixture
def database(tmp_path: Path) -> str:
    """One kind is enough here: what the records keep is tested on both (`tests/contract`)."""
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    """A controller that operations can be run at."""
    stage = Stage.of(SqlFleet.open(database))
    await stage.refresh()
    yield stage
    await stage.controller.stop()


@pytest.fixture
def app(world: World) -> FastAPI:
    return served(world.controller)


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[Browser]:
    browser = Browser(app)
    yield browser
    await browser.http.aclose()


async def _signed_in(app: FastAPI, role: UserRole) -> AsyncIterator[Browser]:
    browser = Browser(app)
    await browser.sign_in(role)
    yield browser
    await browser.http.aclose()


@pytest.fixture
async def viewer(app: FastAPI) -> AsyncIterator[Browser]:
    async for browser in _signed_in(app, UserRole.VIEWER):
        yield browser


@pytest.fixture
async def operator(app: FastAPI) -> AsyncIterator[Browser]:
    async for browser in _signed_in(app, UserRole.OPERATOR):
        yield browser


@pytest.fixture
async def admin(app: FastAPI) -> AsyncIterator[Browser]:
    async for browser in _signed_in(app, UserRole.ADMIN):
        yield browser
