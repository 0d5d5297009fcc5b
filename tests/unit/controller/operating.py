"""Operations on agents without hosts: time goes on by hand, migrations end when they are told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.intents.operate import OperationRequest
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.ports.operations import OperationRecord
from tests.unit.controller.fakes import FakeAgent, FakeBus, HandClock, uuid
from tests.unit.domain.journals import Book

OPERATION = "bbbbbbbb-0000-4000-8000-000000000001"
TICK_S = 2.0


@dataclass
class Stage:
    """Hosts a, b and c, with the VMs x1, x2 and x3 on a."""

    bus: FakeBus
    clock: HandClock
    controller: Controller
    moved: list[tuple[str, str, str]] = field(default_factory=list)
    """VM, source and destination of each migration that has completed, in order."""

    @classmethod
    def of(cls, fleet: SqlFleet) -> Stage:
        a, b, c = (FakeAgent(name, number) for number, name in enumerate("abc", 1))
        for number in (1, 2, 3):
            a.add_vm(f"x{number}", number)
        bus, clock = FakeBus(a, b, c), HandClock()
        return cls(bus, clock, Controller(fleet, bus, clock))

    async def begin(self, *hosts: str, id: str = OPERATION, **more: object) -> OperationRecord:
        await self.refresh()
        known = {"id": id, "hosts": hosts or ("a",), "requested_by": "token:ops", "reason": "new fans"}
        record, _ = await self.controller.operate.begin(OperationRequest.model_validate(known | more))
        return record

    async def refresh(self) -> None:
        """Everything that agents tell has been heard."""
        await self.bus.beat(self.controller)
        for agent in self.bus.agents.values():
            if agent.listening:
                await self.controller.projector.pull(agent.name)
        await self.controller.inventory.refresh()

    async def tick(self) -> None:
        """Some seconds pass, and the controller looks."""
        self.clock.ms += TICK_S * 1000
        await self.refresh()
        await self.controller.follower.tidy()
        await self.controller.operations.look()
        await self.controller.operations.acting.drained()

    async def run(
        self, then: Callable[[], None] | None = None, id: str = OPERATION, ticks: int = 150
    ) -> OperationRecord:
        """Until the operation has ended; migrations complete, unless `then` does something else with them."""
        for _ in range(ticks):
            await self.tick()
            record = await self.controller.fleet.operation(id)
            if record.status.final:
                return record
            (then or self.complete_all)()
        raise AssertionError(f"it has not ended: {record}")

    # ------------------------------------------------------------ what agents do

    def open(self) -> list[Migration]:
        """The migrations that run."""
        found = []
        for agent in self.bus.agents.values():
            ended = {entry.migration_id for entry in agent.journal if entry.kind is Kind.CLOSED}
            found += [one for one in agent.migrations.values() if one.source == agent.name and one.id not in ended]
        return sorted(found, key=lambda one: (one.vm_name, one.id))

    def complete_all(self) -> None:
        for migration in self.open():
            self.complete(migration)

    def complete(self, migration: Migration) -> None:
        source, to = self.bus.agents[migration.source], self.bus.agents[migration.destination]
        source.write(Book(Role.SOURCE, migration=migration).status(Status.COMPLETED).end())
        to.vms[migration.vm_uuid] = source.vms.pop(migration.vm_uuid)
        self.moved.append((migration.vm_name, migration.source, migration.destination))

    def fail(self, migration: Migration, why: str = "the link broke", status: Status = Status.FAILED) -> None:
        book = Book(Role.SOURCE, migration=migration).status(status, why).end()
        self.bus.agents[migration.source].write(book)

    def set_status(self, migration: Migration, status: Status) -> None:
        self.bus.agents[migration.source].write(Book(Role.SOURCE, migration=migration).status(status))

    def set_state(self, name: str, state: GuestState) -> None:
        for agent in self.bus.agents.values():
            for vm in list(agent.vms.values()):
                if vm.name == name:
                    agent.vms[vm.uuid] = vm.model_copy(update={"state": state})

    def places(self) -> dict[str, str]:
        """Where each VM is."""
        return {vm.name: agent.name for agent in self.bus.agents.values() for vm in agent.vms.values()}

    def asked_to_abort(self) -> set[str]:
        """Names of the VMs."""
        ids = {params["id"] for _, method, params in self.bus.calls if method == "abort_migration"}
        return {m.vm_name for agent in self.bus.agents.values() for m in agent.migrations.values() if m.id in ids}

    async def operation(self, id: str = OPERATION) -> OperationRecord:
        return await self.controller.fleet.operation(id)

    async def reasons(self) -> dict[str, str]:
        """Of each VM that waits or stays."""
        standing = (await self.operation()).standing
        waits = {one.name: one.reason for one in standing.waits}
        return waits | {one.name: one.reason for one in standing.left}


FINAL = {OperationStatus.DONE, OperationStatus.INCOMPLETE, OperationStatus.STOPPED, OperationStatus.UNDONE}
X = {name: uuid(number) for number, name in enumerate(("x1", "x2", "x3"), 1)}
