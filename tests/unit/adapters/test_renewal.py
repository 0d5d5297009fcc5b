"""A host's certificate is renewed while it runs, and whatever uses it gets the new one."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sterna import joining
from sterna.adapters.identity.authority import Authority
from sterna.domain.errors import Unreachable
from sterna.joining import Renewal
from tests.unit.adapters.identities import HOST1, Calendar, Desk, loads
from tests.unit.adapters.identities import join as joined


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def authority(tmp_path: Path, calendar: Calendar) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"], calendar)


async def test_it_is_renewed_after_sixty_days_and_not_before(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    own, desk, calls = joined(authority, HOST1, tmp_path / "host"), Desk(authority), list[str]()
    renewal = Renewal(desk, own, calendar, lambda: calls.append("shown"))
    before = own.certificate_file.read_bytes(), own.key_file.read_bytes()
    calendar.at += timedelta(days=59, hours=23)
    assert await renewal.look() is False
    assert (own.certificate_file.read_bytes(), desk.asked, calls) == (before[0], [], ["shown"])
    calendar.at += timedelta(hours=2)
    assert await renewal.look() is True
    assert calls == ["shown", "shown"]
    assert own.certificate_file.read_bytes() != before[0]
    assert own.key_file.read_bytes() != before[1]  # a key of ninety days is replaced as well
    assert own.validity()[1] > calendar() + timedelta(days=89)
    loads(own)
    assert await renewal.look() is False


async def test_a_desk_that_is_away_is_asked_again(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    own, desk = joined(authority, HOST1, tmp_path / "host"), Desk(authority)
    renewal = Renewal(desk, own, calendar, lambda: None)
    before, desk.away = own.certificate_file.read_bytes(), True
    calendar.at += timedelta(days=61)
    with pytest.raises(Unreachable):
        await renewal.look()
    assert own.certificate_file.read_bytes() == before
    desk.away = False
    assert await renewal.look() is True


@pytest.mark.parametrize("error", [OSError("too many open files"), Unreachable("libvirtd hangs")])
async def test_a_certificate_is_shown_again_where_that_failed(
    authority: Authority, tmp_path: Path, calendar: Calendar, error: Exception
) -> None:
    calls = list[str]()

    def shown() -> None:
        calls.append("told")
        if len(calls) == 1:
            raise error

    renewal = Renewal(Desk(authority), joined(authority, HOST1, tmp_path / "host"), calendar, shown)
    with pytest.raises(type(error), match=str(error)):
        await renewal.look()
    assert await renewal.look() is False
    assert calls == ["told", "told"]
    await renewal.look()
    assert len(calls) == 2


async def test_a_process_that_was_killed_behind_its_renewal_shows_the_new_one_in_its_next_life(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    own, seen = joined(authority, HOST1, tmp_path / "host"), list[bytes]()

    def killed() -> None:
        raise KeyboardInterrupt

    def show() -> None:
        seen.append(own.certificate_file.read_bytes())

    calendar.at += timedelta(days=61)
    with pytest.raises(KeyboardInterrupt):
        await Renewal(Desk(authority), own, calendar, killed).look()
    assert await Renewal(Desk(authority), own, calendar, show).look() is False
    assert seen == [own.certificate_file.read_bytes()]


async def test_a_certificate_that_cannot_be_shown_is_renewed_all_the_same(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    """libvirtd may have no socket for orders for months."""
    own = joined(authority, HOST1, tmp_path / "host")

    def never() -> None:
        raise Unreachable("libvirtd hangs")

    renewal = Renewal(Desk(authority), own, calendar, never)
    with pytest.raises(Unreachable, match="libvirtd hangs"):
        await renewal.look()
    calendar.at += timedelta(days=61)
    with pytest.raises(Unreachable, match="libvirtd hangs"):
        await renewal.look()
    assert own.validity()[1] > calendar() + timedelta(days=89)


async def test_a_certificate_that_cannot_be_renewed_is_shown_all_the_same(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    desk, calls = Desk(authority), list[str]()
    desk.away = True
    renewal = Renewal(desk, joined(authority, HOST1, tmp_path / "host"), calendar, lambda: calls.append("shown"))
    calendar.at += timedelta(days=61)
    with pytest.raises(Unreachable, match="away"):
        await renewal.look()
    assert calls == ["shown"]


async def test_a_certificate_that_somebody_else_has_put_there_is_shown(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    """An operator lets the host join again while the agent runs."""
    own, calls = joined(authority, HOST1, tmp_path / "host"), list[str]()
    renewal = Renewal(Desk(authority), own, calendar, lambda: calls.append("shown"))
    await renewal.look()
    calendar.at += timedelta(seconds=2)
    joined(authority, HOST1, tmp_path / "host")
    assert await renewal.look() is False
    assert calls == ["shown", "shown"]


@pytest.mark.parametrize("what", ["validity", "renewal", "accept", "renewed"])
async def test_a_renewal_holds_up_nothing_else(
    what: str, authority: Authority, tmp_path: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be locked by a command for seconds, or be on a disk that hangs."""
    own, goes_on = joined(authority, HOST1, tmp_path / "host"), threading.Event()

    def slow(*args: Any) -> Any:
        assert goes_on.wait(10), "the event loop waits for it"
        return usual(*args)

    def renewed() -> None:
        if what == "renewed":
            slow()

    usual = getattr(own, what, lambda: None)
    if what != "renewed":
        monkeypatch.setattr(own, what, slow)
    calendar.at += timedelta(days=61)
    looking = asyncio.create_task(Renewal(Desk(authority), own, calendar, renewed).look())
    asyncio.get_running_loop().call_later(0.2, goes_on.set)
    assert await looking is True


async def test_a_certificate_that_came_late_is_shown_at_the_next_look(
    authority: Authority, tmp_path: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs is not waited for without an end; once it answers, the certificate is there."""
    own, calls, hangs = joined(authority, HOST1, tmp_path / "host"), list[str](), threading.Event()
    usual, written = own.accept, threading.Event()

    def accept(*args: Any) -> None:
        hangs.wait(10)
        usual(*args)
        written.set()

    monkeypatch.setattr(joining, "FILES_S", 0.5)
    monkeypatch.setattr(own, "accept", accept)
    renewal = Renewal(Desk(authority), own, calendar, lambda: calls.append("shown"))
    calendar.at += timedelta(days=61)
    with pytest.raises(Unreachable, match="its own certificate"):
        await renewal.look()
    assert calls == ["shown"]
    hangs.set()
    assert written.wait(10)
    assert await renewal.look() is False
    assert calls == ["shown", "shown"]
