"""P7: what a VM's image demands stops a migration before it starts, and at P7 where it changed meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from sterna.domain.errors import Refused, Unreachable
from sterna.domain.status import Status
from tests.saga.fleet import SimFleet

IMAGE = "2b5f1c9e-0000-4000-8000-000000000001"


class Glance:
    """Says the same of every image; `away` for as many answers."""

    def __init__(self, properties: dict[str, str] | None) -> None:
        self.told = properties
        self.away = 0

    async def properties(self, image: str) -> dict[str, str] | None:
        assert image == IMAGE
        if self.away:
            self.away -= 1
            raise Unreachable("Glance is away")
        return self.told


class Scene:
    def __init__(self, glance: Glance) -> None:
        self.fleet = SimFleet()
        agent = self.fleet.agents["host2"]
        plain = agent.ports
        agent.ports = lambda: replace(plain(), images=glance, traits=("CUSTOM_GOLD",))  # type: ignore[method-assign]

    async def run(self, scenario: Callable[[SimFleet, str], Awaitable[None]]) -> None:
        async def inside() -> None:
            async with self.fleet as fleet:
                vm = fleet.vm()
                fleet.world.hosts["host1"].domains[vm].definition.image.update({"uuid": IMAGE})
                await scenario(fleet, vm)
                assert not fleet.world.violations

        await self.fleet.clock.run(inside())


@pytest.mark.parametrize("properties", [None, {}, {"hw_disk_bus": "virtio", "trait:CUSTOM_GOLD": "required"}])
async def test_an_image_that_demands_nothing_this_host_has_not(properties: dict[str, str] | None) -> None:
    async def scenario(fleet: SimFleet, vm: str) -> None:
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        image = fleet.agents["host2"].history(fleet.migration).results["read-image-metadata"]["image"]
        assert image == {"uuid": IMAGE, **({"properties": properties} if properties else {})}

    await Scene(Glance(properties)).run(scenario)


async def test_what_it_has_not_is_refused_with_every_reason() -> None:
    async def scenario(fleet: SimFleet, vm: str) -> None:
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["image-hypervisor", "image-trait"]
        assert fleet.world.running(vm) == ["host1"]

    await Scene(Glance({"trait:CUSTOM_SILVER": "required", "img_hv_type": "xen"})).run(scenario)


async def test_what_changes_after_the_check_turns_the_migration_back() -> None:
    glance = Glance({})

    async def scenario(fleet: SimFleet, vm: str) -> None:
        before = fleet.snapshots()
        await fleet.start(vm)
        glance.told = {"trait:CUSTOM_SILVER": "required"}
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() == before

    await Scene(glance).run(scenario)


async def test_a_glance_that_is_away_for_a_moment_is_waited_for() -> None:
    glance = Glance({})

    async def scenario(fleet: SimFleet, vm: str) -> None:
        await fleet.start(vm)
        glance.away = 3
        assert await fleet.ended() is Status.COMPLETED
        assert glance.away == 0

    await Scene(glance).run(scenario)


async def test_a_glance_that_is_away_at_the_check_is_a_reason() -> None:
    glance = Glance({})
    glance.away = 1

    async def scenario(fleet: SimFleet, vm: str) -> None:
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["image-unknown"]

    await Scene(glance).run(scenario)
