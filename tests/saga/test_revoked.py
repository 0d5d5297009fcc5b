"""A host is removed: over the bus, every other agent has the list of revoked certificates within seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from sterna.controller.controller import Controller
from sterna.controller.records.members import Members
from sterna.domain.errors import BadRequest, Temporary, Unreachable
from sterna.domain.model import Data
from sterna.domain.trust.enrolment import EnrolledHost
from sterna.domain.trust.revocation import RevokedList, to_wire
from tests.saga.controlled import HoldingFleet
from tests.saga.fleet import SimFleet

GIVEN = RevokedList(number=7, pem="signed by the CA", removed=("host3",))


@dataclass
class Listed:
    """Implements ports.identity.Enrolment."""

    list: RevokedList | None = None
    gone: set[str] = field(default_factory=set)

    def known(self) -> Mapping[str, EnrolledHost]:
        names = ("host1", "host2", "host3")
        return {n: EnrolledHost(name=n, state="removed" if n in self.gone else "joined") for n in names}

    def revoked(self) -> RevokedList | None:
        return self.list

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        return self.known()


@dataclass
class Here:
    """Implements ports.identity.RevokedHere."""

    taken: list[RevokedList] = field(default_factory=list)
    failing: int = 0

    async def take(self, given: RevokedList) -> int:
        self.taken.append(given)
        if self.failing:
            self.failing -= 1
            raise Temporary("libvirtd does not take it")
        return given.number


async def test_every_host_has_it_in_use_within_seconds(database: str) -> None:
    fleet, enrolment = SimFleet(("host1", "host2", "host3")), Listed()
    here = {name: Here() for name in ("host1", "host2", "host3")}
    for name, agent in fleet.agents.items():
        agent.revoked = here[name]
    members = Members(enrolment, insecure=False)
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, members=members)

    async def inside() -> None:
        async with fleet:
            await controller.start()
            await fleet.clock.sleep(5)
            assert not any(one.taken for one in here.values())
            here["host2"].failing = 1
            enrolment.list, enrolment.gone = GIVEN, {"host3"}
            await fleet.clock.sleep(8)
            assert here["host1"].taken == [GIVEN] and here["host2"].taken == [GIVEN] * 2
            assert here["host3"].taken == []
            await fleet.agents["host1"].kill()
            await fleet.agents["host1"].start()
            await fleet.clock.sleep(8)
            assert here["host1"].taken == [GIVEN] * 2, "it may have died before libvirtd took it"
            assert here["host2"].taken == [GIVEN] * 2
            await controller.stop()

    await fleet.clock.run(inside())


async def test_nor_does_it_wait_for_the_database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, enrolment, here = SimFleet(), Listed(), Here()
    fleet.agents["host1"].revoked = here
    members = Members(enrolment, insecure=False)
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, members=members)

    async def away(topic: str, data: Data) -> None:
        raise Unreachable("the database is away")

    async def inside() -> None:
        async with fleet:
            await controller.start()
            monkeypatch.setattr(controller.registry, "beacon", away)
            enrolment.list = GIVEN
            await fleet.clock.sleep(8)
            assert here.taken == [GIVEN]
            await controller.stop()

    await fleet.clock.run(inside())


async def test_an_agent_without_a_certificate_of_the_ca_takes_none() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(BadRequest, match="no certificate of Sterna's own CA"):
            await fleet.client.call("host1", "take_revoked", to_wire(GIVEN))
