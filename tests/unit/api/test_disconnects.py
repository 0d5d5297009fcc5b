"""A client that closes an event stream, at whatever moment, causes no error in the server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from ..controller.conftest import World, world  # noqa: F401 - a fixture
from .clients import bearing, served

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/v1/events",
    "raw_path": b"/v1/events",
    "query_string": b"",
    "headers": [(k.lower().encode(), v.encode()) for k, v in (bearing() | {"Host": "sterna"}).items()],
    "root_path": "",
}


async def stream(world: World, *, takes: int) -> None:  # noqa: F811
    """One event stream whose client takes so many pieces, then no more, and then leaves."""
    app, taken, stuck, asked = served(world.controller), 0, asyncio.Event(), False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await stuck.wait()
        await asyncio.sleep(0.05)  # keep-alives pile up behind the piece that nobody takes
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal taken
        if message["type"] != "http.response.body":
            return
        taken += 1
        if taken > takes:
            stuck.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        await app(dict(SCOPE), receive, send)


@pytest.mark.parametrize("takes", [0, 1, 5])
async def test_during_a_keep_alive(world: World, monkeypatch: pytest.MonkeyPatch, takes: int) -> None:  # noqa: F811
    monkeypatch.setattr("sterna.api.streams.COMMENT_EVERY_S", 0.001)
    await stream(world, takes=takes)


async def test_what_goes_wrong_besides_is_not_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(world.controller, "event_batches", broken)
    with pytest.raises((ValueError, ExceptionGroup)):
        await stream(world, takes=100)
