"""Requests about the operation of `tests/unit/controller/operating.py`."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.unit.controller.operating import OPERATION

PATH = f"/v1/operations/{OPERATION}"


async def post(http: httpx2.AsyncClient, path: str, status: int, body: Any = None) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def get(http: httpx2.AsyncClient, path: str = PATH, status: int = 200) -> dict[str, Any]:
    answer = await http.get(path)
    assert answer.status_code == status, answer.text
    return dict(answer.json())
