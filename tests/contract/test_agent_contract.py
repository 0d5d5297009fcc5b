"""What a controller may rely on from an agent: real agents and those of `make fleet` pass the same tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from uuid import uuid4

import pytest

from sterna.domain import untrusted
from sterna.domain.copying import JobSample
from sterna.domain.cpus import described
from sterna.domain.errors import BadRequest, Conflict, NotFound, Refused, Undelivered
from sterna.domain.experience import outcome_of
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.journal import Kind, Migration
from sterna.domain.model import Data, GuestState, Vm
from sterna.domain.objective import Asked
from sterna.domain.sightings import fits, text_of
from sterna.domain.status import Status, check_transition
from sterna.kit.digests import digest_of
from tests.asking import to_check, to_start
from tests.contract.agent_stages import HOSTS, MEMORY, VM, AgentStage, real, simulated
from tests.narrowing import not_none

Test = Callable[[AgentStage], Awaitable[None]]
Play = Callable[[Test], Awaitable[None]]
SLOW = Asked(bandwidth_bytes_s=64 << 20)
"""A copy of a minute."""
GOOD = ["queued", "preparing", "migrating", "post-migrating", "completed"]


@pytest.fixture(params=(real, simulated), ids=("real", "simulated"))
def play(request: pytest.FixtureRequest) -> Play:
    async def run(test: Test) -> None:
        clock, stage = request.param()

        async def inside() -> None:
            async with stage as ready:
                await test(ready)

        await clock.run(inside())

    return run


async def test_it_describes_its_host_and_its_vms(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        assert (await stage.ask("host1", "ping"))["boot"]
        answer = await stage.ask("host1", "describe_host")
        facts = HostFacts.model_validate(answer["host"])
        assert facts.cpu_id == digest_of(described(answer["cpu"]).text)
        assert facts.name == "host1" and facts.memory_total_bytes > 0 and facts.address
        (vm,) = untrusted.vm_list(await stage.ask("host1", "list_vms")).seen
        assert (vm.uuid, vm.name, vm.state, vm.memory_bytes) == (VM, "tern", GuestState.RUNNING, MEMORY)
        for name in (VM, "tern"):
            shown = Vm.model_validate((await stage.ask("host1", "show_vm", {"vm": name}))["vm"])
            assert (shown.uuid, shown.state) == (VM, GuestState.RUNNING)
        assert untrusted.vm_list(await stage.ask("host2", "list_vms")).seen == ()
        with pytest.raises(NotFound, match="tern"):
            await stage.ask("host2", "show_vm", {"vm": "tern"})

    await play(test)


async def test_a_vm_moves_and_both_journals_say_so(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start()
        assert (migration.source, migration.destination, migration.epoch) == ("host1", "host2", 1)
        await stage.until(migration, "completed")
        await stage.clock.sleep(5)
        source, destination = [await stage.entries(host) for host in HOSTS[:2]]
        statuses = [entry.data["status"] for entry in source if entry.kind is Kind.STATUS]
        assert statuses == GOOD
        for old, new in pairwise(statuses):
            check_transition(Status(old), Status(new))
        record = await stage.record(migration, "host1", "host2")
        assert (record.status, record.accepted, record.error) == (Status.COMPLETED, True, None)
        assert record.is_closed(on_destination=True)
        outcome = not_none(outcome_of(migration, [*source, *destination]))
        assert not_none(outcome.actual.copy_ms) > 1000 and not_none(outcome.actual.bytes_sent) >= MEMORY * 0.9
        assert untrusted.vm_list(await stage.ask("host1", "list_vms")).seen == ()
        (vm,) = untrusted.vm_list(await stage.ask("host2", "list_vms")).seen
        assert (vm.uuid, vm.state) == (VM, GuestState.RUNNING)

    await play(test)


async def test_it_can_move_on_with_the_next_epoch(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        await stage.until(await stage.start(), "completed")
        await stage.clock.sleep(5)
        answer = await stage.ask("host2", "start_migration", to_start(VM, "host1", source="host2"))
        assert answer["migration"]["epoch"] == 2
        await stage.until(Migration.model_validate(answer["migration"]), "completed", host="host2")

    await play(test)


async def test_the_same_request_again_is_the_same_migration(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        id = str(uuid4())
        first = await stage.start(id=id, asked=SLOW)
        again = await stage.ask("host1", "start_migration", to_start(VM, "host2", SLOW, migration=id))
        assert again == {"migration": first.model_dump(mode="json"), "repeated": True}
        with pytest.raises((Conflict, Refused), match="migration"):
            await stage.start("host3")
        await stage.until(first, "completed")

    await play(test)


async def test_an_abort_before_the_pivot_leaves_the_vm_where_it_was(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start(asked=SLOW)
        await stage.until(migration, "migrating")
        await stage.clock.sleep(3)
        for _ in range(2):
            assert await stage.ask("host1", "abort_migration", {"id": migration.id}) == {"accepted": True}
        await stage.until(migration, "cancelled")
        await stage.clock.sleep(5)
        record = await stage.record(migration, "host1", "host2")
        assert (record.status, record.is_closed(on_destination=True)) == (Status.CANCELLED, True)
        assert not_none(record.error)["code"] == "cancelled"
        assert await stage.ask("host1", "abort_migration", {"id": migration.id}) == {"accepted": True}
        (vm,) = untrusted.vm_list(await stage.ask("host1", "list_vms")).seen
        assert vm.state is GuestState.RUNNING
        assert untrusted.vm_list(await stage.ask("host2", "list_vms")).seen == ()
        await stage.until(await stage.start("host3"), "completed")

    await play(test)


async def test_after_the_end_there_is_nothing_to_abort(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start()
        await stage.until(migration, "completed")
        with pytest.raises(Conflict):
            await stage.ask("host1", "abort_migration", {"id": migration.id})
        with pytest.raises(Conflict):
            await stage.ask("host1", "tune_migration", {"id": migration.id, "bandwidth_bytes_s": 1 << 25})

    await play(test)


async def test_a_refusal_names_its_code(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        for to, code in (("host1", "same-host"), ("nowhere", "destination-down")):
            checked = await stage.ask("host1", "check_migration", to_check(VM, to))
            assert code in {refusal["code"] for refusal in checked["refusals"]}
            with pytest.raises(Refused) as refused:
                await stage.start(to)
            assert code in {refusal.code for refusal in refused.value.refusals}
        assert (await stage.ask("host1", "check_migration", to_check(VM, "host2")))["refusals"] == []
        with pytest.raises(NotFound):
            await stage.ask("host2", "start_migration", to_start(VM, "host1", source="host2"))
        assert await stage.entries("host1") == []

    await play(test)


async def test_what_makes_no_sense_is_a_bad_request(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        params = to_start(VM, "host2")
        wrongs: tuple[Data, ...] = ({"id": ""}, {"options": {}}, {"destination": None})
        for wrong in wrongs:
            with pytest.raises(BadRequest):
                await stage.ask("host1", "start_migration", params | wrong)
        with pytest.raises(BadRequest, match="knows no method"):
            await stage.ask("host1", "no_such_method")
        with pytest.raises(BadRequest, match="only a controller may"):
            await stage.other.call("host1", "start_migration", params)
        for method in ("abort_migration", "tune_migration"):
            with pytest.raises(NotFound):
                await stage.ask("host1", method, {"id": str(uuid4()), "bandwidth_bytes_s": 1 << 25})

    await play(test)


async def test_what_was_declined_never_begins(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        id = str(uuid4())
        assert await stage.ask("host1", "decline_migration", {"id": id}) == {}
        with pytest.raises(Conflict, match="given up"):
            await stage.start(id=id)
        assert await stage.entries("host1") == []

    await play(test)


async def test_a_tuned_copy_takes_longer(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        begun_ms = stage.clock.monotonic_ms()
        migration = await stage.start()
        await stage.until(migration, "migrating")
        await stage.clock.sleep(1)
        with pytest.raises(BadRequest):
            await stage.ask("host1", "tune_migration", {"id": migration.id, "bandwidth_bytes_s": 17})
        limit = {"id": migration.id, "bandwidth_bytes_s": 64 << 20}
        assert await stage.ask("host1", "tune_migration", limit) == {"accepted": True}
        await stage.until(migration, "completed")
        assert stage.clock.monotonic_ms() - begun_ms > 20_000

    await play(test)


async def test_it_tells_what_happens(play: Play) -> None:
    """Beacons, changes of VMs that follow one another, where its journal ends, and how far a copy is."""

    async def test(stage: AgentStage) -> None:
        heard: dict[str, list[Data]] = {"host": [], "vms": [], "journal": [], "progress": []}

        async def hear(topic: str, data: Data) -> None:
            heard[topic.partition(".")[0]].append(data)

        for pattern in ("host.host1", "vms.host1", "journal.host1", "progress.host1.*"):
            await stage.client.listen(pattern, hear)
        listed = await stage.ask("host1", "list_vms")
        known = not_none(untrusted.vm_list(listed).mark)
        assert known.digest == digest_of(text_of(VmSummary.model_validate(vm) for vm in listed["vms"]))
        migration = await stage.start(asked=SLOW)
        await stage.until(migration, "completed")
        await stage.clock.sleep(5)
        beacon = heard["host"][-1]
        assert HostFacts.model_validate(beacon["host"]).name == beacon["name"] == "host1"
        assert beacon["trouble"] is None and beacon["boot"] == (await stage.ask("host1", "ping"))["boot"]
        assert beacon["journal_last"] == len(await stage.entries("host1")) == heard["journal"][-1]["last"]
        for change in heard["vms"]:
            news = untrusted.vm_news(change)
            assert fits(news, known) == "take"
            known = not_none(news.mark)
        assert known == untrusted.mark(beacon["vms"], beacon["boot"])
        assert VM in heard["vms"][-1]["gone"]
        samples = [JobSample.model_validate(data["sample"]) for data in heard["progress"]]
        assert len(samples) > 10 and not_none(samples[0].elapsed_ms) < not_none(samples[-1].elapsed_ms)
        assert not_none(samples[-1].memory_remaining) < not_none(samples[0].memory_remaining)

    await play(test)


async def test_a_migration_whose_destination_died_ends_when_that_is_declared(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start(asked=SLOW)
        await stage.until(migration, "migrating")
        await stage.clock.sleep(3)
        await stage.power_off("host2")
        with pytest.raises(Undelivered):
            await stage.ask("host2", "ping")
        await stage.clock.sleep(120)
        assert not (await stage.record(migration, "host1")).status.final
        planned = await stage.ask("host1", "fencing_plan", {"host": "host2"})
        assert [(one["id"], one["role"]) for one in planned["migrations"]] == [(migration.id, "source")]
        assert planned["answers"] is False
        await stage.ask("host1", "declare_dead", {"host": "host2", "at": "now"})
        await stage.until(migration, "failed")
        await stage.clock.sleep(2)
        assert (await stage.record(migration, "host1")).source_closed
        (vm,) = untrusted.vm_list(await stage.ask("host1", "list_vms")).seen
        assert vm.state is GuestState.RUNNING
        await stage.until(await stage.start("host3"), "completed")

    await play(test)


async def test_a_destination_ends_alone_when_its_source_is_declared_dead(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start(asked=SLOW)
        await stage.until(migration, "migrating")
        await stage.clock.sleep(3)
        await stage.power_off("host1")
        await stage.clock.sleep(60)
        about = {"migration_id": migration.id, "epoch": migration.epoch}
        params = {"migration": migration.model_dump(mode="json")}
        assert await stage.ask("host2", "migration_ending", params, **about) == {"ending": "open"}
        assert await stage.ask("host3", "migration_ending", params, **about) == {"ending": "unknown"}
        await stage.ask("host2", "declare_dead", {"host": "host1", "at": "now"})
        await stage.until(migration, "failed", host="host2")
        await stage.clock.sleep(2)
        record = await stage.record(migration, "host2")
        assert (record.status, record.written_off, record.destination_closed) == (Status.FAILED, True, True)
        assert (await stage.ask("host2", "migration_ending", params, **about))["ending"] == "R7"
        assert untrusted.vm_list(await stage.ask("host2", "list_vms")).seen == ()

    await play(test)


async def test_a_host_that_comes_back_ends_what_it_had_begun(play: Play) -> None:
    async def test(stage: AgentStage) -> None:
        migration = await stage.start(asked=SLOW)
        await stage.until(migration, "migrating")
        await stage.clock.sleep(3)
        boot = (await stage.ask("host1", "ping"))["boot"]
        await stage.power_off("host1")
        await stage.clock.sleep(30)
        await stage.power_on("host1")
        await stage.until(migration, "failed")
        await stage.clock.sleep(5)
        assert (await stage.ask("host1", "ping"))["boot"] != boot
        record = await stage.record(migration, "host1", "host2")
        assert (record.status, record.is_closed(on_destination=True)) == (Status.FAILED, True)
        (vm,) = untrusted.vm_list(await stage.ask("host1", "list_vms")).seen
        assert vm.state is GuestState.SHUTOFF
        assert untrusted.vm_list(await stage.ask("host2", "list_vms")).seen == ()

    await play(test)
