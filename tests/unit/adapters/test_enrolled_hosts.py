"""Who is enrolled is known at any moment, and is what the CA's register says, or said last."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity import enrolled
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.enrolled import EnrolledHosts
from sterna.domain.errors import Temporary
from sterna.domain.trust.enrolment import Register
from tests.unit.adapters.identities import C1, HOST1, HOST2, issue, join


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolled, "READ_EVERY_S", 0.0)


async def states(hosts: EnrolledHosts) -> dict[str, str]:
    """As known once what is being read is there."""
    hosts.known()
    while hosts._reading is not None:
        await asyncio.wait({hosts._reading}, timeout=20)
    found = {name: host.state for name, host in hosts._known.items()}
    return {name: str(state) for name, state in found.items()}


async def test_it_follows_the_register(authority: Authority, tmp_path: Path) -> None:
    issue(authority, C1, tmp_path)
    hosts = EnrolledHosts(authority)
    assert hosts.known() == {}, "a controller is no host"
    authority.invite(HOST1, ["10.0.0.1"])
    assert await states(hosts) == {"host1": "invited"}
    own = join(authority, HOST1, tmp_path / "own")
    assert await states(hosts) == {"host1": "joined"}
    assert (known := hosts.known()["host1"]).until == own.validity()[1] and known.addresses == ("127.0.0.1",)
    authority.invite(HOST1, None)
    assert await states(hosts) == {"host1": "joined"}, "until it joins again"
    authority.remove(HOST1)
    assert await states(hosts) == {"host1": "removed"}
    assert (known := hosts.known()["host1"]).until is None and known.removed is not None
    authority.invite(HOST1, None)
    authority.invite(HOST2, [])
    assert await states(hosts) == {"host1": "invited", "host2": "invited"}


async def test_what_cannot_be_read_is_as_it_was_last_and_said_once(authority: Authority, tmp_path: Path) -> None:
    join(authority, HOST1, tmp_path / "own")
    hosts, register = EnrolledHosts(authority), tmp_path / "ca" / "register.json"
    whole = register.read_bytes()
    register.write_text("{")
    with capture_logs() as logs:
        for _ in range(3):
            assert await states(hosts) == {"host1": "joined"}
        with pytest.raises(Temporary) as caught:
            await hosts.hosts()
    assert len(logs) == 1 and str(tmp_path) not in caught.value.message and caught.value.fix
    register.write_bytes(whole)
    authority.remove(HOST1)
    assert (await hosts.hosts())["host1"].state == "removed"


async def test_a_register_that_is_not_read_to_its_end_stays_as_it_was_last(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk hangs. Who asks for the list waits for a moment; whether a host is believed is known at once."""
    join(authority, HOST1, tmp_path / "own")
    hosts, register, answers = EnrolledHosts(authority), authority.register, threading.Event()
    before = threading.active_count()

    def hang() -> Register:
        answers.wait(60)
        return register()

    monkeypatch.setattr(authority, "register", hang)
    monkeypatch.setattr(enrolled, "READ_S", 0.1)
    with capture_logs() as logs:
        for _ in range(2):
            assert await states(hosts) == {"host1": "joined"}
            with pytest.raises(Temporary, match="cannot be read now") as caught:
                await hosts.hosts()
            assert caught.value.fix
    assert len(logs) == 1 and "no answer within 0.1 s" in logs[0]["why"]
    assert threading.active_count() <= before + 4
    answers.set()
    monkeypatch.setattr(authority, "register", register)
    monkeypatch.setattr(enrolled, "READ_S", 10.0)
    authority.remove(HOST1)
    assert (await hosts.hosts())["host1"].state == "removed"
