"""VMs that a migration holds, or says that it holds: what an operation makes of them."""

from __future__ import annotations

from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.metrics import ControllerMetrics
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.journal import Migration, Role
from sterna.domain.metrics import catalogue
from sterna.domain.status import Status
from tests.unit.controller.fakes import uuid
from tests.unit.controller.operating import Stage, X
from tests.unit.domain.journals import MIGRATION, Book

S = OperationStatus


def arrive(stage: Stage, migration: Migration) -> None:
    """Its VM runs on the destination, whose journal says so. Its source has not released it."""
    source, to = stage.bus.agents[migration.source], stage.bus.agents[migration.destination]
    stage.set_status(migration, Status.POST_MIGRATING)
    to.vms[migration.vm_uuid] = source.vms.pop(migration.vm_uuid)
    data = {"host": to.name, "power_state": "running", "task_state": None, "job": None}
    to.write(Book(Role.DESTINATION, migration=migration).accepted().done("F8", data))


async def test_a_vm_that_has_arrived_and_is_not_released_waits_and_no_other_one_does(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    record, _ = await stage.controller.migrate(MigrateRequest(vm="y", destination="a"))
    arrive(stage, record.migration)
    stage.bus.agents["b"].listening = False  # its journal does not say that it has released the VM
    await stage.refresh()
    (held,) = (vm for vm in await stage.controller.fleet.vms() if vm.name == "y")
    assert (held.host, held.migration_id) == ("a", record.id)
    await stage.begin()
    for _ in range(5):
        await stage.tick()
        for migration in stage.open():
            if migration.id != record.id:
                stage.complete(migration)
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x2", "x3"]
    operation = await stage.operation()
    assert operation.status is S.RUNNING
    (wait,) = operation.standing.waits
    assert (wait.name, wait.reason) == ("y", f"y is in migration {record.id}, which has not ended")
    stage.bus.agents["b"].listening = True
    stage.bus.agents["b"].write(Book(Role.SOURCE, migration=record.migration).status(Status.COMPLETED).end())
    assert (await stage.run()).status is S.DONE
    assert stage.places()["y"] != "a"


async def test_a_host_is_not_done_before_it_has_released_a_vm_that_went_away(stage: Stage) -> None:
    stage.bus.agents["a"].vms.clear()
    stage.bus.agents["a"].add_vm("y", 9)
    await stage.refresh()
    record, _ = await stage.controller.migrate(MigrateRequest(vm="y", destination="b"))
    arrive(stage, record.migration)
    await stage.begin()
    await stage.tick()
    operation = await stage.operation()
    assert (operation.status, operation.standing.waits_for) == (
        S.RUNNING,
        "the end of the migration of y from a to b",
    )
    stage.bus.agents["a"].write(Book(Role.SOURCE, migration=record.migration).status(Status.COMPLETED).end())
    assert (await stage.run()).status is S.DONE


# ------------------------------------------------------------ migrations that a host made up


def made_up(stage: Stage, number: int, vm: str, source: str, to: str) -> None:
    """In the journal of its source."""
    migration = MIGRATION.model_copy(
        update={"id": f"made-up-{number}", "vm_uuid": vm, "vm_name": "x", "source": source, "destination": to}
    )
    stage.bus.agents[source].write(Book(Role.SOURCE, migration=migration).accepted())


async def test_made_up_migrations_of_its_vms_hold_up_no_drain(stage: Stage) -> None:
    for number, vm in enumerate(X.values()):
        made_up(stage, number, vm, "b", "c")
    await stage.begin()
    for _ in range(60):
        await stage.tick()
        for migration in stage.open():
            if migration.source == "a":
                stage.complete(migration)
    assert (await stage.operation()).status is S.DONE
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x2", "x3"]


async def test_nor_do_they_take_room_and_slots_of_others(stage: Stage) -> None:
    for number in range(60):
        stage.bus.agents["c"].add_vm(f"z{number}", 200 + number)
    await stage.refresh()
    before = await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    for number in range(60):
        made_up(stage, number, uuid(200 + number), "b", "c")
    await stage.refresh()
    now = await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    assert (now.plan.moves, now.promised_s) == (before.plan.moves, before.promised_s)


async def test_an_older_one_that_is_made_up_does_not_keep_what_comes_in_from_its_abort(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    made_up(stage, 1, uuid(9), "c", "b")
    await stage.refresh()
    await stage.controller.migrate(MigrateRequest(vm="y", destination="a"))
    await stage.begin()
    await stage.tick()
    aborted = {params["id"] for _, method, params in stage.bus.calls if method == "abort_migration"}
    (real,) = (one.id for one in stage.open() if one.source == "b")
    assert aborted == {real}


async def test_they_neither_stand_in_the_queue_nor_keep_a_request_from_its_end(stage: Stage) -> None:
    await stage.refresh()
    asked = MIGRATION.model_copy(update={"vm_uuid": X["x1"], "vm_name": "x1", "source": "a", "destination": "c"})
    await stage.controller.fleet.admit(asked, "2026-01-01T00:00:00+00:00")
    for number in range(600):
        made_up(stage, number, X["x2"], "b", "c")
    await stage.refresh()
    assert [one.migration for one in (await stage.controller.queue.all()).waits] == [asked.id]
    for _ in range(2):
        await stage.controller.follower.tidy()
        stage.clock.ms += 130_000
        await stage.refresh()
    assert (await stage.controller.fleet.migration(asked.id)).status is Status.FAILED
    found = {one.metric: dict(one.samples) for one in await ControllerMetrics(stage.controller, "0.1.0").families()}
    assert set(found[catalogue.MIGRATIONS].values()) == {0} and found[catalogue.HOST_MIGRATIONS] == {}


async def test_a_host_that_nobody_knows_has_no_series(stage: Stage) -> None:
    """The VM is its own, so that it may hold it."""
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    made_up(stage, 1, uuid(9), "b", "not-a-host")
    await stage.refresh()
    found = {one.metric: dict(one.samples) for one in await ControllerMetrics(stage.controller, "0.1.0").families()}
    assert found[catalogue.HOST_MIGRATIONS] == {("b", "out"): 1}
