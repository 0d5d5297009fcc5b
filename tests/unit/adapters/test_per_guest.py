"""A guest whose QEMU hangs holds up no other guest, and its connection goes to nobody else meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sterna.adapters.libvirt.session import connection
from sterna.adapters.libvirt.session.per_guest import KEPT, PerGuest
from sterna.domain.errors import Unreachable
from sterna.kit.threads import MOST_STUCK

SOON_S = 5.0


class Libvirtd:
    """Counts its connections."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def connect(self, uri: str) -> Client:
        self.asked += 1
        assert self.answers.wait(60)
        self.opened += 1
        self.open += 1
        return Client(self)


class Client:
    def __init__(self, libvirtd: Libvirtd) -> None:
        self._libvirtd = libvirtd

    def isAlive(self) -> bool:
        return True

    def close(self) -> None:
        self._libvirtd.open -= 1


class Hang:
    """A call that libvirtd answers when it is told to."""

    def __init__(self) -> None:
        self.began, self.ends = threading.Event(), threading.Event()

    def __call__(self, conn: Any) -> str:
        self.began.set()
        assert self.ends.wait(60)
        return "ended"


@pytest.fixture
def libvirtd(monkeypatch: pytest.MonkeyPatch) -> Libvirtd:
    here = Libvirtd()
    monkeypatch.setattr(connection, "open_connection", here.connect)
    return here


@pytest.fixture
def guests(libvirtd: Libvirtd) -> Iterator[PerGuest]:
    found = PerGuest("test:///", "guests")
    yield found
    found.close()


@pytest.fixture
def hang() -> Iterator[Hang]:
    call = Hang()
    yield call
    call.ends.set()


async def began(hang: Hang) -> None:
    assert await asyncio.to_thread(hang.began.wait, SOON_S)


async def eventually(holds: Any) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def client(conn: Any) -> Any:
    return conn


async def test_a_guest_that_hangs_holds_up_itself_only(guests: PerGuest, hang: Hang) -> None:
    first = asyncio.create_task(guests.run(hang, "a"))
    await began(hang)
    behind = asyncio.create_task(guests.run(lambda conn: "behind", "a"))
    async with asyncio.timeout(SOON_S):
        assert await guests.run(lambda conn: "b", "b") == "b"
        assert await guests.run(lambda conn: "host") == "host"
    assert not behind.done()
    hang.ends.set()
    assert [await first, await behind] == ["ended", "behind"]


async def test_one_call_after_the_other_needs_one_connection(guests: PerGuest, libvirtd: Libvirtd) -> None:
    for guest in ("a", "b", "", "a"):
        await guests.run(client, guest)
    assert libvirtd.opened == 1


async def test_few_are_kept_when_many_were_needed(guests: PerGuest, libvirtd: Libvirtd) -> None:
    calls = [Hang() for _ in range(KEPT + 3)]
    asked = [asyncio.create_task(guests.run(call, str(number))) for number, call in enumerate(calls)]
    for call in calls:
        await began(call)
        call.ends.set()
    await asyncio.gather(*asked)
    await eventually(lambda: libvirtd.open == KEPT)
    assert libvirtd.opened == KEPT + 3


async def test_a_call_given_up_keeps_its_connection_until_it_ends(
    guests: PerGuest, hang: Hang, libvirtd: Libvirtd
) -> None:
    asked = asyncio.create_task(guests.run(hang, "a"))
    await began(hang)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    async with asyncio.timeout(SOON_S):
        of_b = await guests.run(client, "b")
    again = asyncio.create_task(guests.run(client, "a"))
    await asyncio.sleep(0)
    assert not again.done()
    hang.ends.set()
    assert await again is not of_b
    assert libvirtd.opened == 2


async def test_a_connection_with_a_thread_that_hangs_stays_its_guests(
    guests: PerGuest, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 0.1)
    short = PerGuest("test:///", "short")
    with pytest.raises(Unreachable, match="no answer within"):
        await short.run(hang, "a")
    of_b = await short.run(client, "b")
    of_a = await short.run(client, "a")
    assert of_a is not of_b
    hang.ends.set()
    await eventually(lambda: short._taken["a"].connection.hanging == 0)
    assert await short.run(client, "a") is of_a
    assert not short._taken
    short.close()


async def test_the_connection_of_a_guest_that_is_gone_is_given_back(
    hang: Hang, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks about that guest again."""
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 0.1)
    short = PerGuest("test:///", "short")
    with pytest.raises(Unreachable, match="no answer within"):
        await short.run(hang, "gone")
    await short.run(client, "b")
    assert set(short._taken) == {"gone"}
    hang.ends.set()
    await eventually(lambda: short._taken["gone"].connection.hanging == 0)
    await short.run(client, "b")
    assert not short._taken
    short.close()
    await eventually(lambda: libvirtd.open == 0)


async def test_connections_that_libvirtd_takes_and_never_answers_do_not_pile_up(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OPEN_S", 0.02)
    guests, names = PerGuest("test:///", "silent"), [str(number) for number in range(KEPT + 3)]
    libvirtd.answers.clear()
    for _ in range(MOST_STUCK + 3):
        asked = await asyncio.gather(*(guests.run(client, of) for of in names), return_exceptions=True)
        assert all(isinstance(error, Unreachable) for error in asked)
    assert libvirtd.asked == MOST_STUCK * len(names)
    assert set(guests._taken) == set(names)
    monkeypatch.setattr(connection, "OPEN_S", SOON_S)
    libvirtd.answers.set()
    await eventually(lambda: not any(lane.connection.hanging for lane in guests._taken.values()))
    assert libvirtd.open == 0  # what came late was closed
    for of in names:
        await guests.run(client, of)
    assert not guests._taken
    guests.close()


async def test_closing_ends_every_connection(libvirtd: Libvirtd, hang: Hang) -> None:
    guests = PerGuest("test:///", "guests")
    asked = asyncio.create_task(guests.run(hang, "a"))
    await began(hang)
    await guests.run(client, "b")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    guests.close()
    hang.ends.set()
    await eventually(lambda: libvirtd.open == 0)
