from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import pytest

from sterna.domain.errors import Conflict, NotFound
from sterna.domain.model import Data, GuestState
from sterna.domain.sightings import News
from sterna.ports.fleet import Taken

from .conftest import World
from .fakes import FakeAgent


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


async def test_a_host_with_another_uuid_keeps_its_name_once_an_administrator_says_so(world: World) -> None:
    registry, other = world.controller.registry, "99999999-0000-4000-8000-000000000000"
    told = {"host": world.a.facts().model_copy(update={"host_uuid": other}).model_dump(), "boot": world.a.boot}
    assert await registry.beacon("host.a", told) is None
    for _ in range(2):
        await world.controller.pins.pin("a", UUID(other.upper()))
    assert await registry.beacon("host.a", told) is not None
    assert (await world.fleet.host("a")).facts.host_uuid == other
    world.clock.ms += 6_000
    await world.bus.beat(world.controller)
    assert not (await registry.host("a")).up, "the old one is another host now"
    with pytest.raises(Conflict, match="is the UUID of a") as taken:
        await world.controller.pins.pin("b", UUID(other))
    assert "uuidgen" in taken.value.fix
    with pytest.raises(NotFound):
        await world.controller.pins.pin("z", UUID(other))


async def test_a_refused_heartbeat_says_how_to_pin_the_name_again(world: World) -> None:
    facts = world.a.facts().model_copy(update={"host_uuid": "99999999-0000-4000-8000-000000000000"})
    with pytest.raises(Conflict) as refused:
        await world.fleet.save_host(facts, "life-1", "2026-01-01T00:00:00+00:00")
    assert f"`sterna host pin a {facts.host_uuid}`" in refused.value.fix


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


async def test_what_the_hosts_say_is_stored_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is slow makes a list as slow as one answer of it, not as slow as one for each host."""
    take, written = world.fleet.take_news, list[list[str]]()

    async def take_news(told: list[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        written.append([host for host, _ in told])
        return await take(told, asked, at)

    monkeypatch.setattr(world.fleet, "take_news", take_news)
    assert [vm.name for vm in (await world.controller.inventory.vms()).vms] == ["web1"]
    assert written == [["a", "b", "c"]]


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


LOST = {
    "why": "libvirtd cannot be used since 2026-11-29 11:00:00 UTC: refused",
    "since": "2026-11-29T11:00:00+00:00",
}
FULL = {"why": "its journal cannot be written since 2026-11-29 11:00:00 UTC: full", "since": "2026-11-29T11:00:00Z"}


async def test_an_agent_without_libvirtd_is_not_silent(world: World) -> None:
    registry, bus = world.controller.registry, world.bus.bus_state()
    world.clock.ms += 6_000
    assert await registry.beacon("host.a", {"name": "a", "host": None, "trouble": LOST}) is None
    host = await registry.host("a")
    assert (host.up, host.usable, host.answers, host.state) == (False, False, True, "degraded")
    assert (trouble := host.not_usable(bus)) is not None and trouble.why == LOST["why"]
    world.clock.ms += 6_000  # silent now: what it said last is not what is wrong
    host = await registry.host("a")
    assert host.state == "down" and "nothing received" in str(host.not_usable(bus))
    await world.bus.beat(world.controller, "a")
    assert (await registry.host("a")).state == "up"


async def test_one_that_was_never_described_is_listed_and_speaks_for_itself_only(world: World) -> None:
    registry = world.controller.registry
    for topic, name in (("host.new", "new"), ("host.new", "other"), ("host.a b", "a b"), ("host.", "")):
        await registry.beacon(topic, {"name": name, "host": None, "trouble": LOST})
    await registry.beacon("host.odd", {"name": "odd", "host": None, "trouble": {"why": "x", "since": "yesterday"}})
    assert [h.name for h in await registry.hosts()] == ["a", "b", "c", "new"]
    assert "new" in (await world.controller.inventory.vms()).silent
    assert "new" in (await world.controller.audits.audit()).silent
    world.clock.ms += 6_000
    assert (await registry.host("new")).state == "down", "it stays listed when it falls silent"


async def test_a_stranger_cannot_fill_the_list_of_hosts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.controller.records.registry.MOST_UNDESCRIBED", 5)
    for n in range(50):
        await world.controller.registry.beacon(f"host.x{n}", {"name": f"x{n}", "host": None, "trouble": LOST})
    assert len(await world.controller.registry.hosts()) == 3 + 5


async def test_a_host_that_is_up_may_be_degraded(world: World) -> None:
    told = {"name": "a", "host": world.a.facts().model_dump(), "trouble": FULL}
    await world.controller.registry.beacon("host.a", told)
    host = await world.controller.registry.host("a")
    assert (host.up, host.usable, host.state) == (True, False, "degraded")
    assert [v.state for v in (await world.controller.inventory.vms()).vms] == [GuestState.RUNNING], (
        "it can be asked"
    )
    await world.bus.beat(world.controller, "a")
    assert (await world.controller.registry.host("a")).state == "up"


WHY = "its certificate expires on 2026-12-09 10:00 UTC"
EXPIRES = {"why": WHY, "since": "2026-11-25T10:00:00Z", "fix": "renew"}


async def test_a_host_that_warns_of_something_can_be_used(world: World) -> None:
    registry, told = world.controller.registry, {"name": "a", "host": world.a.facts().model_dump()}
    await registry.beacon("host.a", told | {"warning": EXPIRES})
    host = await registry.host("a")
    assert (host.usable, host.state, host.not_usable(world.bus.bus_state())) == (True, "up", None)
    assert host.warning is not None and (host.warning.why, host.warning.fix) == (WHY, "renew")
    await registry.beacon("host.a", told | {"warning": None})
    assert (await registry.host("a")).warning is None
    await registry.beacon("host.a", told | {"warning": EXPIRES})
    world.clock.ms += 6_000
    assert (await registry.host("a")).warning is None, "silent: what it said last may be so no more"
    await registry.beacon("host.a", told | {"warning": {"why": "x", "since": "yesterday"}})
    assert registry.beacons_refused == 1


async def test_a_listing_is_complete_when_all_have_answered_but_the_dead(world: World) -> None:
    assert (await world.controller.inventory.vms()).complete
    world.clock.ms += 6_000
    await world.bus.beat(world.controller, "b", "c")
    listing = await world.controller.inventory.vms()
    assert not listing.complete and listing.why["a"].startswith("nothing received from its agent")
    await world.controller.registry.set_dead("a", "2026-11-29T11:00:00+00:00")
    assert (await world.controller.inventory.vms()).complete
    world.b.listening = False
    listing = await world.controller.inventory.vms()
    assert not listing.complete and listing.why["b"] == "nobody answers for b"


async def test_a_vm_that_changes_hosts_between_two_answers_is_there_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = world.bus._list_vms

    def switch_over_after_the_answer(agent: FakeAgent, params: Data) -> Data:
        answer = answered(agent, params)
        if agent is world.a and world.web1 in world.a.vms:
            world.b.vms[world.web1] = world.a.vms.pop(world.web1)
        return answer

    monkeypatch.setattr(world.bus, "_list_vms", switch_over_after_the_answer)
    found = await world.controller.inventory.find("web1")
    assert (found.host, found.state) == ("b", GuestState.RUNNING)
