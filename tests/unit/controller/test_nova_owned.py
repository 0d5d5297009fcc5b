"""A VM that a Nova has on a host of its own is not moved: a start through that Nova would start a second copy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.controller.controller import Controller
from sterna.domain.errors import Refused, SternaError, Unreachable
from sterna.domain.nova import NovaFacts
from sterna.domain.objective import Asked

from .conftest import World
from .fakes import uuid
from .requests import request


class FakeNova:
    def __init__(self) -> None:
        self.owned: dict[str, str] = {}
        self.fault: SternaError | None = None
        self.asked = 0

    async def host_of(self, server: str) -> str | None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.owned.get(server)

    async def hosts(self) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return ["b", "compute7"]


@pytest.fixture
def nova() -> FakeNova:
    return FakeNova()


@pytest.fixture
async def controller(world: World, nova: FakeNova) -> AsyncIterator[Controller]:
    world.a.vms[uuid(1)] = world.a.vms[uuid(1)].model_copy(update={"nova": NovaFacts(name="web1")})
    controller = Controller(world.fleet, world.bus, world.clock, nova=nova)
    await world.bus.beat(controller)
    yield controller
    controller.events.close()


async def refusals(controller: Controller, to: str | None) -> list[str]:
    with pytest.raises(Refused) as refused:
        await controller.migrate(request(to=to))
    assert all(r.fix for r in refused.value.refusals)
    return [r.code for r in refused.value.refusals]


@pytest.mark.parametrize("to", ["b", None])
async def test_what_nova_has_is_refused_and_so_it_is_said_in_a_plan(
    world: World, controller: Controller, nova: FakeNova, to: str | None
) -> None:
    nova.owned[uuid(1)] = "compute7"
    assert await refusals(controller, to) == ["nova-owned"]
    plan = await controller.plan("web1", to, Asked())
    assert [r.code for r in plan.blockers] == ["nova-owned"]
    assert "compute7" in plan.blockers[0].message
    assert world.bus.asked("start_migration") == 0


async def test_all_other_reasons_stand_beside_it(world: World, controller: Controller, nova: FakeNova) -> None:
    nova.owned[uuid(1)] = "compute7"
    await controller.registry.set_maintenance("b", True)
    assert set(await refusals(controller, "b")) == {"nova-owned", "destination-in-maintenance"}
    await controller.registry.set_maintenance("c", True)
    assert set(await refusals(controller, None)) == {"nova-owned", "destination-in-maintenance"}


@pytest.mark.parametrize("to", ["b", None])
async def test_while_nova_does_not_answer_nothing_that_it_made_is_moved(
    world: World, controller: Controller, nova: FakeNova, to: str | None
) -> None:
    nova.fault = Unreachable("Nova does not answer")
    assert await refusals(controller, to) == ["nova-silent"]


@pytest.mark.parametrize("to", ["b", None])
async def test_what_nova_does_not_know_is_sternas(
    world: World, controller: Controller, nova: FakeNova, to: str | None
) -> None:
    await controller.migrate(request(to=to))
    assert nova.asked == 1 and world.bus.asked("start_migration") == 1


async def test_what_nova_has_not_made_is_not_asked_about(
    world: World, controller: Controller, nova: FakeNova
) -> None:
    nova.fault = Unreachable("Nova does not answer")
    world.a.vms[uuid(1)] = world.a.vms[uuid(1)].model_copy(update={"nova": None})
    await controller.migrate(request())
    assert nova.asked == 0


async def test_an_audit_says_which_hosts_a_nova_manages(
    world: World, controller: Controller, nova: FakeNova
) -> None:
    found = await controller.audits.audit()
    assert (found.nova_hosts, found.nova_why) == (("b",), "")
    assert (await controller.audits.audit("a")).nova_hosts == ()
    nova.fault = Unreachable("Nova does not answer")
    found = await controller.audits.audit()
    assert (found.nova_hosts, found.nova_why) == ((), "Nova does not answer")
    without = await world.controller.audits.audit()
    assert (without.nova_hosts, without.nova_why) == ((), "")
