"""A fleet whose placement rules are written through the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.access import UserRole
from tests.unit.api.clients import client, served
from tests.unit.controller.operating import OPERATION, Stage

DRAIN: dict[str, Any] = {"id": OPERATION, "hosts": ["a"]}
PATH = f"/v1/operations/{OPERATION}"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    await stage.refresh()
    yield stage
    await stage.controller.stop()


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(served(stage.controller), UserRole.ADMIN, raises=False) as http:
        yield http


async def ask(http: httpx2.AsyncClient, method: str, path: str, status: int, body: Any = None) -> dict[str, Any]:
    answer = await http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def put(http: httpx2.AsyncClient, name: str, status: int = 201, **more: Any) -> dict[str, Any]:
    return await ask(http, "PUT", f"/v1/rules/{name}", status, more)


async def migrate(http: httpx2.AsyncClient, vm: str, to: str | None, status: int, **more: Any) -> dict[str, Any]:
    return await ask(http, "POST", "/v1/migrations", status, {"vm": vm, "destination": to} | more)
