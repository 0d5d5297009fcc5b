"""A request to migrate: accepted once, refused with every reason, settled by the source's journal."""

from __future__ import annotations

import asyncio

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.intents import migrate_vm
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.reasons import VmBusy, VmMissing
from sterna.domain.errors import Conflict, Refused, Temporary, Unknown, Unreachable
from sterna.domain.model import Disk, DiskKind, GuestState, Refusal
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.refused import codes, refusals
from tests.unit.controller.requests import ID, request

from .conftest import World
from .fakes import FakeAgent, FakeBus, HandClock, uuid


async def test_a_migration_is_accepted_and_holds_the_vm(world: World) -> None:
    record, repeated = await world.controller.migrate(request())
    assert not repeated and record.migration.epoch == 7 and record.status is Status.QUEUED
    assert [v.migration_id for v in await world.fleet.vms()] == [ID]
    assert (await world.controller.inventory.find("web1")).migration_id == ID


async def test_without_an_id_one_is_made(world: World) -> None:
    record, _ = await world.controller.migrate(request(id=""))
    assert len(record.id) == 36


@pytest.mark.parametrize(
    "name", ["web1", "aaaaaaaa-0000-4000-8000-000000000001", "AAAAAAAA-0000-4000-8000-000000000001"]
)
async def test_a_vm_is_named_by_name_or_uuid(world: World, name: str) -> None:
    record, _ = await world.controller.migrate(request(vm=name))
    assert record.migration.vm_uuid == world.web1


async def test_no_such_vm_and_no_such_host_together(world: World) -> None:
    assert await codes(world, request(vm="nope", to="nowhere"), VmMissing) == ["no-such-host", "no-such-vm"]


async def test_no_such_vm_names_the_hosts_that_could_not_be_asked(world: World) -> None:
    world.c.listening = False
    with pytest.raises(VmMissing) as raised:
        await world.controller.migrate(request(vm="nope"))
    assert "could not be asked: c" in raised.value.refusals[0].fix


async def test_an_unknown_host_does_not_hide_what_the_vm_says(world: World) -> None:
    world.a.add_vm("web1", 1, GuestState.PAUSED)
    assert await codes(world, request(to="nowhere")) == ["no-such-host", "vm-paused"]


async def test_destination_is_source(world: World) -> None:
    world.a.add_vm("web1", 1, GuestState.SHUTOFF)
    assert await codes(world, request(to="a")) == ["same-host", "vm-not-running"]


async def test_destination_down_and_in_maintenance_and_the_vm_paused(world: World) -> None:
    world.a.add_vm("web1", 1, GuestState.PAUSED)
    await world.controller.registry.set_maintenance("b", True)
    world.clock.ms += 6000
    await world.bus.beat(world.controller, "a", "c")
    found = await codes(world, request())
    assert found == ["destination-down", "destination-in-maintenance", "vm-paused"]


async def test_a_destination_in_maintenance_is_asked_all_the_same(world: World) -> None:
    world.b.against = [Refusal(code="memory-short", message="too little", fix="free some")]
    await world.controller.registry.set_maintenance("b", True)
    assert await codes(world, request()) == ["destination-in-maintenance", "memory-short"]


async def test_maintenance_ends(world: World) -> None:
    await world.controller.registry.set_maintenance("b", True)
    assert await codes(world, request()) == ["destination-in-maintenance"]
    await world.controller.registry.set_maintenance("b", False)
    await world.controller.migrate(request())


async def test_all_that_the_agents_say(world: World) -> None:
    world.b.against = [Refusal(code=c, message=c, fix="f") for c in ("bridge-missing", "memory-short")]
    assert await codes(world, request()) == ["bridge-missing", "memory-short"]


async def test_a_vm_on_the_only_host_there_is_has_nowhere_to_go(database: str) -> None:
    only = FakeAgent("a", 1)
    only.add_vm("web1", 1, GuestState.PAUSED)
    bus = FakeBus(only)
    controller = Controller(SqlFleet.open(database), bus, HandClock())
    await bus.beat(controller)
    with pytest.raises(Refused) as refused:
        await controller.migrate(request(to=None))
    assert [r.code for r in refused.value.refusals] == ["no-destination", "vm-paused"]
    await controller.stop()


async def test_a_vm_on_a_host_that_is_down(world: World) -> None:
    await world.controller.inventory.vms()
    world.clock.ms += 6000
    await world.bus.beat(world.controller, "b", "c")
    assert await codes(world, request()) == ["source-down"]


async def test_an_ambiguous_name_names_the_uuids(world: World) -> None:
    other = world.b.add_vm("web1", 2)
    assert await codes(world, request()) == ["vm-name-ambiguous"]
    with pytest.raises(Refused, match=other):
        await world.controller.migrate(request())
    await world.controller.migrate(request(vm=world.web1))


async def test_a_vm_that_runs_twice_is_refused(world: World) -> None:
    world.b.add_vm("web1", 1)
    assert await codes(world, request(to="c")) == ["vm-runs-twice"]


async def test_a_busy_vm_is_a_conflict_that_names_the_migration(world: World) -> None:
    await world.controller.migrate(request())
    with pytest.raises(VmBusy, match=ID) as raised:
        await world.controller.migrate(request(id="", to="nowhere"))
    assert sorted(r.code for r in raised.value.refusals) == ["migration-under-way", "no-such-host"]


async def test_a_lock_only_the_agent_knows_of_is_a_conflict_too(world: World) -> None:
    world.bus.faults["start_migration"] = [Conflict("web1 is in migration x already")]
    with pytest.raises(Conflict):
        await world.controller.migrate(request())
    assert [v.migration_id for v in await world.fleet.vms()] == [None]


async def test_what_the_source_refuses_at_the_last_moment_leaves_nothing(world: World) -> None:
    world.bus.faults["start_migration"] = [Refused([Refusal(code="memory-short", message="m", fix="f")])]
    assert await codes(world, request()) == ["memory-short"]


async def test_the_same_id_again_is_the_same_migration(world: World) -> None:
    first, _ = await world.controller.migrate(request())
    again, repeated = await world.controller.migrate(request(to=None))
    assert repeated and again.id == first.id
    assert world.bus.asked("start_migration") == 1


async def test_the_same_id_again_is_the_same_migration_however_its_uuid_is_written(world: World) -> None:
    first, _ = await world.controller.migrate(request(vm=world.web1.upper()))
    again, repeated = await world.controller.migrate(request(vm=world.web1.upper()))
    assert repeated and again.id == first.id


async def test_the_same_id_for_something_else_is_a_conflict(world: World) -> None:
    await world.controller.migrate(request())
    with pytest.raises(Conflict, match="another request"):
        await world.controller.migrate(request(to="c"))


async def test_fifty_at_once_make_one_migration(world: World) -> None:
    answers = await asyncio.gather(
        *(world.controller.migrate(request(id="")) for _ in range(50)), return_exceptions=True
    )
    assert sum(1 for a in answers if isinstance(a, tuple)) == 1
    assert sum(1 for a in answers if isinstance(a, Conflict)) == 49
    assert len(await world.fleet.migrations(Page())) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # whose one thread keeps the requests in order
@pytest.mark.parametrize("later", [1, 2, 3])
async def test_who_comes_when_one_has_just_left_waits_for_who_waited(world: World, later: int) -> None:
    within, most, turns = 0, 0, [asyncio.Event() for _ in range(3)]

    async def judged(asked: MigrateRequest) -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        await turns[int(asked.id)].wait()
        within -= 1
        raise Refused([Refusal(code="no-such-vm", message="no")])

    world.controller._migrate._refuse_busy = judged  # type: ignore[method-assign,assignment]
    asked = [asyncio.create_task(world.controller.migrate(request(id=str(n)))) for n in range(2)]
    async with asyncio.timeout(5):
        while not within:
            await world.fleet.hosts()
        turns[0].set()
        await asyncio.wait(asked[:1])
        asked.append(asyncio.create_task(world.controller.migrate(request(id="2"))))
        for _ in range(later):
            await world.fleet.hosts()
        for turn in turns:
            turn.set()
        await asyncio.gather(*asked, return_exceptions=True)
    assert most == 1
    assert world.controller._migrate._gates == {}


@pytest.mark.parametrize("hanging", ["vms_called", "host", "take_news"])
async def test_a_database_that_hangs_keeps_the_next_request_for_the_vm_waiting_for_a_while_only(
    world: World, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    await world.controller.inventory.vms()
    hangs, answers = asyncio.Event(), getattr(world.fleet, hanging)

    async def hang(*args: object) -> None:
        monkeypatch.setattr(world.fleet, hanging, answers)
        monkeypatch.setattr(migrate_vm, "JUDGE_S", 60)  # the next one has time
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(migrate_vm, "JUDGE_S", 1.0)  # on a busy machine it must reach what hangs
    monkeypatch.setattr(world.fleet, hanging, hang)
    async with asyncio.timeout(20):
        first = asyncio.create_task(world.controller.migrate(request(id=uuid(1))))
        await hangs.wait()
        record, _ = await world.controller.migrate(request())
        with pytest.raises(Unreachable, match=r"web1 could not be checked within"):
            await first
    assert record.accepted
    assert [m.id for m in await world.fleet.migrations(Page())] == [ID]


async def test_fifty_times_the_same_request_at_once_is_one_migration(world: World) -> None:
    answers = await asyncio.gather(*(world.controller.migrate(request()) for _ in range(50)))
    assert {record.id for record, _ in answers} == {ID}
    assert [repeated for _, repeated in answers].count(False) == 1
    assert world.bus.asked("start_migration") == 1


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(world: World) -> None:
    world.bus.faults["start_migration"] = [Unknown("lost"), Unknown("lost"), None]
    record, _ = await world.controller.migrate(request())
    assert record.migration.epoch == 7
    assert {p["id"] for _, m, p in world.bus.calls if m == "start_migration"} == {ID}
    assert len([m for m in world.a.migrations if m == ID]) == 1


async def test_a_source_too_busy_to_say_whether_it_took_it_is_asked_again(world: World) -> None:
    world.bus.faults["start_migration"] = [Unknown("lost"), Temporary("a works on 1000 calls already"), None]
    record, _ = await world.controller.migrate(request())
    assert record.migration.epoch == 7 and (await world.fleet.migration(ID)).accepted
    assert [v.migration_id for v in await world.fleet.vms()] == [ID]


async def test_a_migration_that_was_accepted_stays_one_where_the_database_cannot_take_it_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source's journal says the same a moment later."""

    async def away(*_: object) -> None:
        raise Unreachable("the database is away")

    monkeypatch.setattr(world.fleet, "accepted", away)
    record, repeated = await world.controller.migrate(request())
    assert (record.id, record.migration.epoch, record.accepted, repeated) == (ID, 7, True, False)
    assert world.bus.asked("start_migration") == 1
    assert (await world.fleet.migration(ID)).status is Status.QUEUED
    await world.pull()
    assert (await world.fleet.migration(ID)).accepted
    assert [v.migration_id for v in await world.fleet.vms()] == [ID]


async def test_answers_that_stay_lost_leave_an_open_request_that_the_journal_decides(world: World) -> None:
    world.bus.faults["start_migration"] = [Unknown("lost")] * 9
    record, _ = await world.controller.migrate(request())
    assert "to confirm that" in record.reason
    await world.pull()
    assert (await world.fleet.migration(ID)).accepted


async def test_a_request_nobody_accepted_is_ended_when_the_journal_proves_it(world: World) -> None:
    await world.controller.inventory.vms()
    async with asyncio.timeout(5):
        world.bus.faults["start_migration"] = [Unknown("lost")] * 9
        world.bus._start_migration = lambda agent, params: {}  # type: ignore[method-assign]
        await world.controller.migrate(request())
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(ID)).status is Status.QUEUED
    world.clock.jump_s = 86_400.0  # the wall clock jumps: no time has passed
    await world.bus.beat(world.controller)
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(ID)).status is Status.QUEUED
    world.clock.ms += 200_000
    await world.bus.beat(world.controller)
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(ID)).status is Status.FAILED
    assert [v.migration_id for v in await world.fleet.vms()] == [None]


async def test_a_request_is_not_ended_while_its_source_does_not_promise_to_decline_it(world: World) -> None:
    world.b.add_vm("web2", 2)
    await world.controller.inventory.vms()
    world.bus._start_migration = lambda agent, params: {}  # type: ignore[method-assign]
    world.bus.faults["start_migration"] = [Unknown("lost")] * 18
    await world.controller.migrate(request())
    await world.controller.migrate(request("web2", "a", id=uuid(99)))
    await world.controller.follower.tidy()
    world.clock.ms += 200_000
    await world.bus.beat(world.controller)
    world.bus.faults["decline_migration"] = [Unknown("b hangs")]  # the newest is first
    await world.controller.follower.tidy()
    found = {m.id: m.status for m in await world.fleet.migrations(Page())}
    assert found == {ID: Status.FAILED, uuid(99): Status.QUEUED}
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(uuid(99))).status is Status.FAILED


async def test_a_source_that_was_never_reached_leaves_nothing(world: World) -> None:
    async def call(to: str, method: str, *args: object, **more: object) -> dict[str, object]:
        if method == "start_migration":
            raise Unreachable("nobody listens")
        return await real(to, method, *args, **more)  # type: ignore[arg-type]

    real = world.bus.call
    world.bus.call = call  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await world.controller.migrate(request())
    assert await world.fleet.migrations(Page()) == []


async def test_a_source_that_falls_silent_during_the_check_is_a_reason(world: World) -> None:
    world.bus.faults["check_migration"] = [Unknown("nothing received for 15 s")] * 3
    assert "source-down" in [r.code for r in await refusals(world, request(to=None))]


async def test_a_source_that_is_to_accept_checks_once(world: World) -> None:
    await world.controller.migrate(request())
    assert (world.bus.asked("check_migration"), world.bus.asked("start_migration")) == (0, 1)


async def test_what_the_source_refuses_to_accept_leaves_the_vm_free(world: World) -> None:
    world.b.against = [Refusal(code="memory-short", message="too little memory", fix="free some")]
    assert [r.code for r in await refusals(world, request())] == ["memory-short"]
    assert [v.migration_id for v in await world.fleet.vms()] == [None]
    world.b.against = []
    record, known = await world.controller.migrate(request())
    assert (record.migration.destination, known) == ("b", False)


@pytest.mark.parametrize("to", ["b", None])
async def test_who_wants_no_disk_copied_is_told_which_would_be(world: World, to: str | None) -> None:
    shared, local = Disk(target="vda", kind=DiskKind.ISCSI), Disk(target="vdb", kind=DiskKind.FILE, local=True)
    world.a.disks[uuid(1)] = (shared, local)
    without = request(to=to).model_copy(update={"copies_disks": False})
    assert await codes(world, without) == ["disk-copy-unwanted"]
    world.a.disks[uuid(1)] = (shared,)
    _, repeated = await world.controller.migrate(without)
    assert not repeated
