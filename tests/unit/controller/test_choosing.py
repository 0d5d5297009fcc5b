"""A request without a destination: the controller chooses a host, or gives each host's reasons."""

from __future__ import annotations

import pytest

from sterna.domain.model import GuestState, Refusal
from tests.unit.controller.refused import codes, refusals
from tests.unit.controller.requests import request

from .conftest import World


async def test_the_host_with_the_most_free_memory_is_chosen(world: World) -> None:
    record, _ = await world.controller.migrate(request(to=None))
    assert record.migration.destination == "b"


async def test_hosts_with_reasons_against_them_are_passed_over(world: World) -> None:
    world.b.against = [Refusal(code="bridge-missing", message="b has no br-int", fix="make it")]
    record, _ = await world.controller.migrate(request(to=None))
    assert record.migration.destination == "c"


async def test_where_none_will_do_each_hosts_reasons_are_given(world: World) -> None:
    await world.controller.registry.set_maintenance("c", True)
    world.b.against = [Refusal(code="memory-short", message="too little memory", fix="free some")]
    reasons = await refusals(world, request(to=None))
    assert [(r.code, r.message) for r in reasons] == [
        ("memory-short", "b: too little memory"),
        ("destination-in-maintenance", "c is in maintenance"),
    ]


async def test_what_is_wrong_with_the_vm_itself_is_said_once(world: World) -> None:
    world.a.add_vm("web1", 1, GuestState.PAUSED)
    assert [r.code for r in await refusals(world, request(to=None))] == ["vm-paused"]


async def test_no_other_host(world: World) -> None:
    only = World(**(vars(world)))
    world.clock.ms += 6000
    await only.bus.beat(only.controller, "a")
    reasons = await refusals(world, request(to=None))
    assert sorted(r.code for r in reasons) == ["destination-down", "destination-down"]


FULL = {"why": "its journal cannot be written since 2026-11-29 11:00:00 UTC: full", "since": "2026-11-29T11:00:00Z"}


async def degrade(world: World, *names: str, described: bool = True) -> None:
    """These hosts say what is wrong with them; with `described` libvirt is not what is."""
    for name in names:
        facts = world.bus.agents[name].facts().model_dump() if described else None
        beacon = {"name": name, "host": facts, "trouble": FULL | {"fix": "free space"}}
        await world.controller.registry.beacon(f"host.{name}", beacon)


@pytest.mark.parametrize("described", [True, False])
async def test_a_degraded_host_is_not_a_destination(world: World, described: bool) -> None:
    if not described:
        world.clock.ms += 6_000
        await world.bus.beat(world.controller, "a", "c")
    await degrade(world, "b", described=described)
    assert await codes(world, request(to="b")) == ["destination-degraded" if described else "destination-down"]
    (reason,) = await refusals(world, request(to="b"))
    assert "its journal cannot be written since 2026-11-29" in reason.message and reason.fix == "free space"
    record, _ = await world.controller.migrate(request(to=None))
    assert record.migration.destination == "c", "though b has more free memory"


async def test_nor_does_a_migration_begin_on_one(world: World) -> None:
    await degrade(world, "a")
    assert await codes(world, request(to="b")) == ["source-degraded"]
