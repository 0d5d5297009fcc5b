from __future__ import annotations

import pytest

from sterna.domain.errors import NotFound
from sterna.domain.model import GuestState

from .conftest import World


async def test_a_host_is_up_for_five_seconds_after_its_last_beacon(world: World) -> None:
    registry = world.controller.registry
    world.clock.ms += 4_900
    assert [h.up for h in await registry.hosts()] == [True, True, True]
    await world.bus.beat(world.controller, "b")
    world.clock.ms += 200
    assert [h.up for h in await registry.hosts()] == [False, True, False]


async def test_a_name_belongs_to_the_host_it_was_first_heard_with(world: World) -> None:
    facts = world.a.facts().model_copy(
        update={"host_uuid": "99999999-0000-4000-8000-000000000000", "address": "evil"}
    )
    for _ in range(2):
        assert await world.controller.registry.beacon("host.a", {"host": facts.model_dump()}) is None
    assert (await world.controller.registry.host("a")).facts.address == "10.0.0.1"


async def test_a_beacon_speaks_for_its_own_topic_only(world: World) -> None:
    assert await world.controller.registry.beacon("host.z", {"host": world.a.facts().model_dump()}) is None
    assert await world.controller.registry.beacon("host.z", {"host": {"name": "z"}}) is None
    assert await world.controller.registry.beacon("host.z", {}) is None
    with pytest.raises(NotFound):
        await world.controller.registry.host("z")


async def test_facts_are_fresh_though_they_are_stored_rarely(world: World) -> None:
    world.a.free = 123
    await world.bus.beat(world.controller)
    assert (await world.controller.registry.host("a")).facts.memory_free_bytes == 123
    assert (await world.fleet.host("a")).facts.memory_free_bytes != 123


async def test_vms_of_a_host_that_is_down_are_shown_as_last_seen(world: World) -> None:
    before = await world.controller.inventory.vms()
    assert [(v.name, v.state, v.host) for v in before.vms] == [("web1", GuestState.RUNNING, "a")]
    world.clock.ms += 6_000
    await world.bus.beat(world.controller, "b", "c")
    after = await world.controller.inventory.vms()
    assert [(v.state, v.host) for v in after.vms] == [(GuestState.UNKNOWN, "a")]
    assert after.vms[0].observed_at == before.vms[0].observed_at and after.silent == ("a",)


async def test_a_host_that_does_not_answer_is_not_believed_to_be_empty(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.listening = False
    assert [v.state for v in (await world.controller.inventory.vms()).vms] == [GuestState.UNKNOWN]


async def test_a_vm_that_is_gone_is_forgotten(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.vms.clear()
    assert (await world.controller.inventory.vms()).vms == ()


async def test_a_vm_is_where_it_runs_not_where_it_is_still_defined(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.add_vm("web1", 1, GuestState.SHUTOFF)
    world.b.add_vm("web1", 1)
    assert [(v.host, v.state) for v in (await world.controller.inventory.vms()).vms] == [("b", GuestState.RUNNING)]


async def test_an_incoming_copy_does_not_move_the_vm(world: World) -> None:
    await world.controller.inventory.vms()
    world.b.add_vm("web1", 1, GuestState.PAUSED)
    assert [(v.host, v.state) for v in (await world.controller.inventory.vms()).vms] == [("a", GuestState.RUNNING)]


async def test_details_of_a_vm(world: World) -> None:
    found, details = await world.controller.inventory.show("web1")
    assert details is not None and details.uuid == found.uuid == world.web1
    world.clock.ms += 6_000
    found, details = await world.controller.inventory.show("web1")
    assert details is None and found.state is GuestState.UNKNOWN
