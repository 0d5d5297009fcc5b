"""A migration whose memory is being copied, and what its source says of that."""

from __future__ import annotations

from typing import Any

from sterna.domain.journal import Role
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book
from .conftest import World


def sample(n: int, done: int) -> dict[str, Any]:
    look = {"elapsed_ms": n * 500, "memory_total": 1000, "memory_processed": done, "memory_remaining": 1000 - done}
    return {"sample": look, "at": "x"}


async def copying(world: World) -> None:
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("preparing").status("migrating"))
    await world.pull()
