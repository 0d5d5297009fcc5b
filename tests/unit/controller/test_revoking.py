"""Every host is handed the newest list of revoked certificates, and asked again where it has not taken it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from sterna.controller.records.members import Members
from sterna.controller.records.registry import UP_FOR_MS
from sterna.controller.revoking import AGAIN_MS, HANDING_S, Revoking
from sterna.domain.errors import Temporary, Unknown
from sterna.domain.model import Data
from sterna.domain.trust.enrolment import EnrolledHost
from sterna.domain.trust.revocation import RevokedList

from .fakes import FakeAgent, FakeBus, HandClock


@dataclass
class Listed:
    """Implements ports.identity.Enrolment."""

    list: RevokedList | None = None
    gone: set[str] = field(default_factory=set)

    def known(self) -> Mapping[str, EnrolledHost]:
        return {n: EnrolledHost(name=n, state="removed" if n in self.gone else "joined") for n in "abc"}

    def revoked(self) -> RevokedList | None:
        return self.list

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        return self.known()


class Bus(FakeBus):
    """Its agents take lists."""

    def _take_revoked(self, agent: FakeAgent, params: Data) -> Data:
        return {"number": params["number"]}


@dataclass
class Stage:
    bus: Bus
    enrolment: Listed
    clock: HandClock
    revoking: Revoking

    async def beacon(self, host: str, number: object) -> None:
        self.revoking.heard(host, number)
        while self.revoking._handing:
            await asyncio.wait(self.revoking._handing.values(), timeout=20)
            await asyncio.sleep(0)

    @property
    def handed(self) -> list[tuple[str, int]]:
        return [(host, params["number"]) for host, _, params in self.bus.calls]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    bus, enrolment, clock = Bus(*(FakeAgent(n, i) for i, n in enumerate("abc", 1))), Listed(), HandClock()
    yield (made := Stage(bus, enrolment, clock, Revoking(Members(enrolment, insecure=False), bus, clock)))
    await made.revoking.stop()


async def test_each_host_gets_each_list_once(stage: Stage) -> None:
    await stage.beacon("a", 0)
    assert stage.handed == [], "nothing is revoked"
    stage.enrolment.list = RevokedList(number=7, pem="x", removed=("c",))
    await stage.beacon("a", 0)
    await stage.beacon("b", 3)
    await stage.beacon("a", 7)
    await stage.beacon("a", 8)
    assert stage.handed == [("a", 7), ("b", 7)]
    assert stage.bus.calls[0][2] == {"number": 7, "pem": "x", "removed": ["c"]}


async def test_beacons_on_their_way_do_not_have_it_handed_over_again(stage: Stage) -> None:
    stage.enrolment.list = RevokedList(number=7, pem="x")
    stage.revoking.heard("a", 0)
    await stage.beacon("a", 0)
    await stage.beacon("a", 0)
    assert stage.handed == [("a", 7)]
    stage.clock.ms += AGAIN_MS
    await stage.beacon("a", 0)
    assert stage.handed == [("a", 7)] * 2, "its agent has started anew"


async def test_one_that_did_not_take_it_is_asked_again_and_that_is_said_once(stage: Stage) -> None:
    stage.enrolment.list = RevokedList(number=7, pem="x")
    stage.bus.faults["take_revoked"] = [Temporary("libvirtd does not answer")] * 2
    with capture_logs() as logs:
        for _ in range(3):
            await stage.beacon("a", 0)
            stage.clock.ms += AGAIN_MS
    assert stage.handed == [("a", 7)] * 3
    (said,) = logs
    assert said["host"] == "a" and said["why"] == "libvirtd does not answer"


@pytest.mark.parametrize("number", [None, "7", True, 1.5, [], -(2**70)])
async def test_a_beacon_may_say_anything(number: object, stage: Stage) -> None:
    stage.enrolment.list = RevokedList(number=7, pem="x")
    await stage.beacon("a", number)
    assert stage.handed == ([("a", 7)] if type(number) is int else [])


async def test_a_removed_host_gets_none(stage: Stage) -> None:
    stage.enrolment.list, stage.enrolment.gone = RevokedList(number=7, pem="x", removed=("b",)), {"b"}
    await stage.beacon("b", 0)
    assert stage.handed == []


async def test_it_is_known_who_has_it_in_use(stage: Stage) -> None:
    knows = stage.revoking.knows
    await stage.beacon("a", 0)
    await stage.beacon("c", None)
    assert (knows("a"), knows("b"), knows("c")) == (True, None, None)
    stage.enrolment.list = RevokedList(number=7, pem="x")
    assert knows("a") is False
    await stage.beacon("a", 7)
    assert knows("a") is True
    stage.enrolment.gone = {"a"}
    await stage.beacon("a", 7)
    await stage.beacon("made-up", 7)
    assert knows("a") is None and knows("made-up") is None


async def test_of_a_host_that_has_fallen_silent_nothing_is_known(stage: Stage) -> None:
    stage.enrolment.list = RevokedList(number=7, pem="x")
    await stage.beacon("a", 7)
    stage.clock.ms += UP_FOR_MS
    assert stage.revoking.knows("a") is True
    stage.clock.ms += 1
    assert stage.revoking.knows("a") is None
    await stage.beacon("a", 7)
    assert stage.revoking.knows("a") is True


async def test_a_host_that_never_answers_keeps_the_list_from_no_other_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its libvirtd hangs: the call's own limit ends it. One place is enough for the others."""
    stage.enrolment.list = RevokedList(number=7, pem="x")
    stage.revoking._places = asyncio.Semaphore(2)
    real, ends = stage.bus.call, asyncio.Event()

    async def call(to: str, method: str, params: Data, **more: Any) -> Data:
        if to == "a":
            assert more["total_s"] == HANDING_S
            await ends.wait()
            raise Unknown("no result after 90 s, though its agent sends heartbeats for it")
        return await real(to, method, params, **more)

    monkeypatch.setattr(stage.bus, "call", call)
    for host in "abc":
        stage.revoking.heard(host, 0)
    others = [task for host, task in stage.revoking._handing.items() if host != "a"]
    await asyncio.wait(others, timeout=20)
    stage.revoking.heard("a", 0)
    assert stage.handed == [("b", 7), ("c", 7)]
    ends.set()
    await stage.beacon("a", 0)
    monkeypatch.setattr(stage.bus, "call", real)
    stage.clock.ms += AGAIN_MS
    await stage.beacon("a", 0)
    assert stage.handed[2:] == [("a", 7)]


async def test_without_the_ca_nothing_is_known() -> None:
    bus = Bus(FakeAgent("a", 1))
    revoking = Revoking(Members(None, insecure=False), bus, HandClock())
    revoking.heard("a", 0)
    assert not revoking._handing and not bus.calls
