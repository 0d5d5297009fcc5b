"""Casts to send, and a handler that writes them down."""

from __future__ import annotations

from collections.abc import Callable

from sterna.ports.records import Envelope
from sterna.rpc.envelope import Reply, Request, decode_reply, encode
from sterna.rpc.subjects import cast_subject

from .conftest import Host, World


def cast(id: str, to: str = "b", migration_id: str = "m1", **params: object) -> Envelope:
    return Envelope(id=id, to=to, method="note", migration_id=migration_id, epoch=3, params=params)


def recorder(host: Host, fail: Callable[[Request], None] = lambda request: None) -> list[str]:
    """A handler that writes down ids, after `fail` had its say."""
    seen: list[str] = []

    async def handler(request: Request) -> None:
        fail(request)
        seen.append(request.id)

    host.server.cast("note", handler)
    return seen


async def send(world: World, id: str, migration_id: str = "m1") -> Reply:
    request = Request(kind="cast", id=id, method="note", sender="a", migration_id=migration_id)
    async with world.a.bus.request(cast_subject("b", "a"), encode(request)) as replies:
        return decode_reply(await anext(replies))
