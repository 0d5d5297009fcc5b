"""Where there is a CA, a host is one that has joined: others make no host, and a removed one takes no VM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.intents.operate import OperationRequest
from sterna.controller.records import registry as hosts_registry
from sterna.controller.records.members import Members
from sterna.domain.errors import NotFound, Refused
from sterna.domain.objective import Asked
from sterna.domain.trust.enrolment import EnrolledHost
from sterna.domain.trust.revocation import RevokedList
from tests.unit.controller.requests import request

from .fakes import FakeAgent, FakeBus, HandClock

REMOVED = datetime(2026, 1, 1, 11, tzinfo=UTC)


@dataclass
class Listed:
    """Implements ports.identity.Enrolment."""

    listed: dict[str, EnrolledHost] = field(default_factory=dict)

    def known(self) -> Mapping[str, EnrolledHost]:
        return self.listed

    def revoked(self) -> RevokedList | None:
        return None

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        return self.listed

    def put(self, *hosts: EnrolledHost) -> None:
        self.listed |= {host.name: host for host in hosts}


@dataclass
class Fleet:
    """Three agents, of which `a` and `b` have joined, and `a` has `web1`."""

    bus: FakeBus
    enrolment: Listed
    controller: Controller

    async def names(self) -> list[str]:
        await self.bus.beat(self.controller)
        return [host.name for host in await self.controller.registry.hosts()]


def joined(name: str) -> EnrolledHost:
    return EnrolledHost(name=name, state="joined", addresses=("10.0.0.1",))


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('records')}/controller.db"


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[Fleet]:
    a, b, c = FakeAgent("a", 1), FakeAgent("b", 2), FakeAgent("c", 3)
    a.add_vm("web1", 1)
    bus, enrolment = FakeBus(a, b, c), Listed()
    enrolment.put(joined("a"), joined("b"), EnrolledHost(name="c", state="invited"))
    controller = Controller(SqlFleet.open(database), bus, HandClock(), members=Members(enrolment, insecure=False))
    yield Fleet(bus, enrolment, controller)
    await controller.stop()


async def test_a_beacon_of_one_that_has_not_joined_makes_no_host(fleet: Fleet) -> None:
    fleet.bus.agents |= {"z": FakeAgent("z", 26), "y": FakeAgent("y", 25, lost="no libvirtd")}
    with capture_logs() as logs:
        for _ in range(3):
            assert await fleet.names() == ["a", "b"]
    told = sorted(line["topic"] for line in logs if line["event"] == "heartbeat refused")
    assert told == ["host.c", "host.y", "host.z"], "each is logged once"
    assert fleet.controller.registry.beacons_refused == 9
    assert not fleet.controller.registry.answers("z") and not fleet.controller.registry.answers("y")
    for name in ("c", "y", "z"):
        with pytest.raises(NotFound):
            await fleet.controller.registry.host(name)
    fleet.enrolment.put(joined("c"))
    assert await fleet.names() == ["a", "b", "c"]


async def test_made_up_names_take_no_memory(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_registry, "MOST_UNDESCRIBED", 5)
    for n in range(50):
        await fleet.controller.registry.beacon(f"host.h{n}", {"host": {"name": f"h{n}"}})
    assert fleet.controller.registry.beacons_refused == 50
    assert len(fleet.controller.registry._refused) <= 5


@pytest.mark.parametrize("lost", ["", "no libvirtd"])
async def test_a_removed_host_is_usable_no_more_at_once_and_silent_soon(fleet: Fleet, lost: str) -> None:
    await fleet.names()
    fleet.enrolment.put(EnrolledHost(name="b", state="removed", removed=REMOVED))
    fleet.bus.agents["b"].lost = lost
    with capture_logs() as logs:
        await fleet.names()
    (told,) = (line for line in logs if line.get("topic") == "host.b")
    assert "remove it from the bus" in told["fix"], "it still speaks there"
    registry, bus = fleet.controller.registry, fleet.controller.bus_state()
    host = await registry.host("b")
    trouble = host.not_usable(bus)
    assert trouble is not None and "removed from the fleet at 2026-01-01T11:00:00 UTC" in trouble.why
    assert "sterna host add b" in trouble.fix
    with pytest.raises(Refused, match="removed from the fleet"):
        await fleet.controller.migrate(request("web1", "b"))
    with pytest.raises(Refused, match="b was removed from the fleet: its VMs cannot be migrated"):
        await fleet.controller.operate.begin(OperationRequest(hosts=("b",)))
    for _ in range(6):
        await fleet.controller.registry._clock.sleep(1)
        await fleet.names()
    assert not registry.answers("b") and registry.answers("a")
    assert (await registry.host("b")).state == "down"


async def test_the_source_is_told_where_the_destination_was_enrolled(fleet: Fleet) -> None:
    """Not where the destination says that it is: its beacon has 10.0.0.2."""
    await fleet.names()
    await fleet.controller.plan("web1", "b", Asked())
    await fleet.controller.migrate(request("web1", "b"))
    asked = {method: params["options"]["addresses"] for _, method, params in fleet.bus.calls if "options" in params}
    assert asked == {"check_migration": ["10.0.0.1"], "start_migration": ["10.0.0.1"]}


async def test_one_that_was_a_host_before_there_was_a_ca(fleet: Fleet) -> None:
    await fleet.names()
    del fleet.enrolment.listed["b"]
    trouble = (await fleet.controller.registry.host("b")).not_usable(fleet.controller.bus_state())
    assert trouble is not None and "not enrolled" in trouble.why


async def test_without_a_ca_the_bus_alone_decides(database: str) -> None:
    bus = FakeBus(FakeAgent("a", 1))
    controller = Controller(SqlFleet.open(database), bus, HandClock())
    await bus.beat(controller)
    assert [host.name for host in await controller.registry.hosts()] == ["a"]
    assert controller.registry.enrolled_at("a") is None
    with pytest.raises(NotFound, match="has no CA") as caught:
        await controller.members.hosts()
    assert "ca_folder" in caught.value.fix
    await controller.stop()
