"""The REST API as its tests use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from ..controller.conftest import World
from ..controller.requests import ID, MOVE
from ..domain.journals import good_destination, good_source


@dataclass
class Api:
    world: World
    http: httpx2.AsyncClient

    async def get(self, path: str, status: int = 200) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def problem(self, method: str, path: str, status: int, **more: object) -> dict[str, Any]:
        answer = await self.http.request(method, path, **more)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = dict(answer.json())
        assert set(problem) == {"type", "title", "status", "detail", "instance", "reasons"}
        assert problem["reasons"] and all(set(r) == {"code", "message", "fix"} for r in problem["reasons"])
        return problem

    async def run_to_the_end(self) -> None:
        self.world.a.write(good_source(MOVE.model_copy(update={"id": ID})))
        self.world.b.write(good_destination(MOVE.model_copy(update={"id": ID})))
        await self.world.pull()


def body(**more: object) -> dict[str, object]:
    return {"vm": "web1", "destination": "b", "id": ID, **more}
