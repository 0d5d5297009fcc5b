"""A definition from another host may name very many things: few are looked for at once, and one does not end."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from sterna.adapters.host import looks, resources
from sterna.domain.errors import Temporary
from sterna.domain.references import Kind, Reference


def peers(number: int) -> list[Reference]:
    return [Reference(kind=Kind.PEER, name=f"10.0.0.{n}", where=f"serial {n}", port=7) for n in range(number)]


def files(number: int) -> list[Reference]:
    return [Reference(kind=Kind.FILE, name=f"/srv/{n}", where=f"file {n}") for n in range(number)]


@pytest.mark.parametrize("of", [peers, files])
async def test_few_are_looked_for_at_once(of: Any) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def look(refs: looks.Together) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            if at_once == looks._AT_ONCE:
                full.set()
        assert full.wait(10)
        with lock:
            at_once -= 1
        return refs[0].name

    wanted = of(100)
    assert await looks.at_each(wanted, look) == [ref.name for ref in wanted]
    assert most == looks._AT_ONCE


async def test_those_that_hang_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check ends while its caller still waits; what is of another kind is looked for meanwhile."""
    monkeypatch.setattr(looks, "LOOK_S", 0.3)
    ends = threading.Event()

    def look(refs: looks.Together) -> str:
        if refs[0].kind is Kind.PEER:
            ends.wait(30)
        return refs[0].name

    wanted = [*peers(64), *files(1)]
    try:
        async with asyncio.timeout(5):
            found = await looks.at_those_that_answer(wanted, look)
            with pytest.raises(Temporary):
                await looks.at_each(wanted, look)
    finally:
        ends.set()
    assert [answer for refs, answer in found if answer] == ["/srv/0"]


def test_an_address_is_tried() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert not resources.reaches("127.0.0.1", port)
        listener.listen()
        assert resources.reaches("127.0.0.1", port) and not resources.reaches("nobody.invalid", port)
