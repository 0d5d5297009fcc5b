"""VMs that a migration holds, or says that it holds: what an operation makes of them."""

from __future__ import annotations

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.journal import Migration, Role
from sterna.domain.status import Status
from tests.unit.controller.operating import Stage
from tests.unit.domain.journals import Book

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
