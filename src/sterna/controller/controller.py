"""One controller: joins the records, the hosts' hints and the intents. Made by `bootstrap`, spoken to by `api`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from sterna.controller.background import Follower, Parts
from sterna.controller.calls import AgentCalls
from sterna.controller.intents.abort_migration import AbortMigration
from sterna.controller.intents.audit import AuditFleet
from sterna.controller.intents.compare_cpus import CompareCpus
from sterna.controller.intents.declare_dead import DeclareDead
from sterna.controller.intents.examine import Examine
from sterna.controller.intents.external_events import take_events
from sterna.controller.intents.force_complete import ForceComplete
from sterna.controller.intents.migrate_vm import MigrateVm
from sterna.controller.intents.operate import Operate, request_of
from sterna.controller.intents.pin_host import PinHost
from sterna.controller.intents.place_vm import PlaceVm
from sterna.controller.intents.placement_rules import PlacementRules
from sterna.controller.intents.plan_migration import Forecasting, Plan, PlanMigration
from sterna.controller.intents.rehearse_migration import RehearseMigration, refused
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.intents.switch_to_postcopy import SwitchToPostcopy
from sterna.controller.intents.tune_migration import TuneMigration
from sterna.controller.intents.users import Users
from sterna.controller.intents.waiting_list import WaitingList
from sterna.controller.notifications.notifications import Notifications
from sterna.controller.operations.acting import Acting
from sterna.controller.operations.carrying_out import Operations
from sterna.controller.operations.observing import Capacity, Observer
from sterna.controller.records.copy_progress import CopyProgress
from sterna.controller.records.events import Event, Events
from sterna.controller.records.forecasts import ForecastHistory
from sterna.controller.records.inventory import Inventory
from sterna.controller.records.members import Members
from sterna.controller.records.projector import Projector
from sterna.controller.records.registry import Registry
from sterna.controller.records.snapshot import Snapshot
from sterna.controller.records.totals import MigrationTotals
from sterna.controller.records.traces import TraceExport
from sterna.controller.revoking import Revoking
from sterna.domain.compute.external_events import ExternalEvent
from sterna.domain.definition_diff import DefinitionDiff, definition_diff
from sterna.domain.diagram import draw
from sterna.domain.diagram_svg import draw_svg
from sterna.domain.errors import Refused
from sterna.domain.fleet.attempts import Attempt
from sterna.domain.fleet.rules import RuleKind
from sterna.domain.objective import Asked
from sterna.domain.report import Report, build_report
from sterna.domain.spans import Trace, trace_of
from sterna.domain.timeline import Item, build_timeline
from sterna.ports.bus import BusState
from sterna.ports.clock import Clock
from sterna.ports.cloud import NovaReads
from sterna.ports.fleet import EntryRecord, Fleet, MigrationRecord, Page
from sterna.ports.hooks import Hooks
from sterna.ports.identity import Permits
from sterna.ports.operations import OperationRecord
from sterna.rpc.dead_letters import DeadLetters

log = structlog.get_logger(__name__)

ENDING_S = 10.0
"""How long a controller that stops waits for its own tasks, which are cancelled. systemd kills it after 90 s."""


class Controller:
    """Everything the API can ask for."""

    traces: TraceExport | None = None
    """Sends a trace of each migration that has ended; None: nobody does."""

    def __init__(
        self,
        fleet: Fleet,
        calls: AgentCalls,
        clock: Clock,
        dead_letters: DeadLetters | None = None,
        nova: NovaReads | None = None,
        members: Members | None = None,
        permits: Permits | None = None,
    ) -> None:
        """`nova`: one that has VMs of its own among these hosts' (`[nova]`). `members`: who takes part; None:
        whoever the bus lets speak. `permits`: None where this controller has no certificate of Sterna's own CA."""
        self.fleet = fleet
        self.events = Events(fleet)
        self.members = members or Members(None, insecure=False)
        self.registry = Registry(fleet, clock, self.members)
        self.snapshot = Snapshot(fleet, self.registry, calls, clock)
        self.inventory = Inventory(fleet, self.registry, self.snapshot, calls, clock)
        self.copies = CopyProgress(fleet, self.events, clock)
        self.projector = Projector(fleet, calls, self.events, self.copies, clock, permits)
        self.totals = MigrationTotals(fleet, clock)
        self.projector.on_stored = self._stored
        self.forecast_history = ForecastHistory(fleet, clock)
        self._migrate = MigrateVm(fleet, self.registry, self.inventory, calls, clock, self.forecast_history, nova)
        self._migrate.permits = permits
        self._abort = AbortMigration(fleet, calls, clock)
        self._tune = TuneMigration(fleet, calls, clock)
        self._plan = PlanMigration(self.forecast_history, self.registry, self.inventory, calls, self._migrate)
        self._rehearse = RehearseMigration(fleet, self._migrate, clock)
        self._switch = SwitchToPostcopy(fleet, calls)
        self._force = ForceComplete(fleet, calls)
        self._calls, self._stopping = calls, asyncio.Event()
        self.dead_letters = dead_letters or DeadLetters(clock)
        self.audits = AuditFleet(self.registry, calls, self.dead_letters, nova)
        self.doctor = Examine(self.registry, calls, clock, self.members, nova)
        self.users = Users(fleet, clock)
        self.deaths = DeclareDead(fleet, self.registry, calls, clock)
        self.revoking = Revoking(self.members, calls, clock)
        looked_after = self.registry, self.projector, self.copies, self.inventory, self.snapshot, self.deaths
        self.follower = Follower(fleet, Parts(*looked_after, self.revoking), calls, clock)
        self._observer = observer = Observer(fleet, self.registry, self.snapshot, calls, self.forecast_history)
        self.operations = Operations(fleet, observer, Acting(fleet, self.begin_attempt, self.abort, clock), clock)
        self.projector.on_taken = self.operations.waking.taken
        self.pins = PinHost(fleet, self.registry)
        self.operate = Operate(fleet, self.registry, observer, clock, self.operations.wake)
        self.rules = PlacementRules(fleet, self.registry, clock, self.operations.wake)
        self.place = PlaceVm(self.inventory, observer).place
        self.queue = WaitingList(fleet, clock)
        self.cpus = CompareCpus(self.registry, calls)
        self.notifications = Notifications(fleet, self.registry, self.bus_state, clock)

    async def _stored(self, entries: Sequence[EntryRecord]) -> None:
        """These are new in the records. Raises nothing."""
        await self.totals.stored(entries)
        if self.traces is not None:
            self.traces.stored(entries)

    def fill_hosts(self, capacity: Capacity) -> None:
        """What operations plan with from now on."""
        self._observer.capacity = capacity

    async def failure_domains(self) -> dict[str, str]:
        """Host -> its failure domain, by the placement rules; without hosts that have none. Raises Unreachable."""
        rules = [rule for rule in await self._observer.rules() if rule.kind is RuleKind.FAILURE_DOMAIN]
        return {host: rule.name for rule in rules for host in rule.hosts}

    def use_hooks(self, hooks: Hooks) -> None:
        """What rolling operations ask to do something to empty hosts from now on."""
        self.operations.between.hooks = self.operate.hooks = hooks

    async def start(self) -> None:
        """Follow the agents; return when it is known which are up, or that the database is away, or once
        `prepare_to_stop` was called."""
        starting, stop = asyncio.ensure_future(self._start()), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
        finally:
            for task in (starting, stop):
                task.cancel()
            await asyncio.gather(starting, stop, return_exceptions=True)

    async def _start(self) -> None:
        self.notifications.start()
        await self.follower.start()
        self.forecast_history.begin()
        await self.registry.wait_for_beacons()
        self.operations.start()

    def bus_state(self) -> BusState:
        """Whether this controller has a connection to the bus: without one every host looks down."""
        return self._calls.bus_state()

    def prepare_to_stop(self) -> None:
        """End the event streams, which never end by themselves, and `start`, where it has not ended."""
        self.events.close()
        self._stopping.set()

    async def stop(self) -> None:
        """End all streams, stop following, let the database go. Migrations go on without a controller. Tasks that
        do not end within ENDING_S are left."""
        self.events.close()
        ending = asyncio.create_task(self._end_tasks(), name="end")
        await asyncio.wait({ending}, timeout=ENDING_S)
        if ending.done():
            ending.result()
        else:
            log.warning("the controller stops although some of its work does not end")
            ending.cancel()
        await self.fleet.close()

    async def _end_tasks(self) -> None:
        await self.operations.stop()
        await self.notifications.stop()
        await self.follower.stop()
        await self.forecast_history.stop()

    async def migrate(self, request: MigrateRequest) -> tuple[MigrationRecord, bool]:
        """See MigrateVm.start."""
        record, repeated = await self._migrate.start(request)
        self.follower.look(record.migration.source)
        return record, repeated

    async def begin_attempt(self, operation: OperationRecord, attempt: Attempt) -> MigrationRecord:
        """The migration that an operation has decided on. See MigrateVm.start."""
        record, _ = await self.migrate(request_of(operation, attempt))
        return record

    async def plan(self, vm: str, destination: str | None, asked: Asked, *, ignore_rules: bool = False) -> Plan:
        """See PlanMigration.plan."""
        return await self._plan.plan(vm, destination, asked, ignore_rules=ignore_rules)

    async def rehearse(self, plan: Plan, asked: Asked, *, with_copy: bool, requested_by: str = "") -> Plan:
        """The plan with the result of a rehearsal; unchanged where it has blockers already."""
        if plan.blockers or plan.destination is None:
            return plan
        try:
            where = plan.vm.uuid, plan.destination
            record = await self._rehearse.start(*where, asked, with_copy=with_copy, requested_by=requested_by)
        except Refused as error:
            return plan.model_copy(update={"rehearsal": refused(error)})
        self.follower.look(record.migration.source)
        return plan.model_copy(update={"rehearsal": await self._rehearse.result(record, with_copy=with_copy)})

    async def accuracy(self) -> Forecasting:
        """See PlanMigration.accuracy."""
        return await self._plan.accuracy()

    async def abort(self, migration_id: str) -> MigrationRecord:
        """See AbortMigration.abort."""
        record = await self._abort.abort(migration_id)
        self.follower.look(record.migration.source)
        return record

    async def tune(self, migration_id: str, bandwidth_bytes_s: int | None) -> MigrationRecord:
        """See TuneMigration.tune."""
        return await self._tune.tune(migration_id, bandwidth_bytes_s)

    async def take_events(self, events: Sequence[ExternalEvent]) -> list[int]:
        """See external_events.take_events."""
        return await take_events(self.fleet, self._calls, events)

    async def switch_to_postcopy(self, migration_id: str) -> MigrationRecord:
        """See SwitchToPostcopy.switch."""
        record = await self._switch.switch(migration_id)
        self.follower.look(record.migration.source)
        return record

    async def force_complete(self, migration_id: str) -> MigrationRecord:
        """See ForceComplete.force."""
        record = await self._force.force(migration_id)
        self.follower.look(record.migration.source)
        return record

    async def migration(self, migration_id: str) -> MigrationRecord:
        """With what its copy said last. Raises NotFound."""
        return self.copies.newest(await self.fleet.migration(migration_id))

    async def migrations(self, page: Page) -> list[MigrationRecord]:
        """Newest first, each with what its copy said last."""
        return [self.copies.newest(record) for record in await self.fleet.migrations(page)]

    async def report(self, record: MigrationRecord) -> Report:
        """The report as far as its journals have been read."""
        return build_report(record.migration, await self.fleet.entries(record.id))

    async def timeline(self, migration_id: str) -> tuple[Item, ...]:
        """Raises NotFound."""
        record = await self.fleet.migration(migration_id)
        return build_timeline(record.migration, await self.fleet.entries(migration_id))

    async def definition_diff(self, migration_id: str) -> DefinitionDiff:
        """Raises NotFound."""
        record = await self.fleet.migration(migration_id)
        return definition_diff(record.migration, record.status, await self.fleet.entries(migration_id))

    async def diagram(self, migration_id: str, *, svg: bool = False) -> str:
        """PlantUML source, or the picture. Raises NotFound."""
        record = await self.fleet.migration(migration_id)
        items = build_timeline(record.migration, await self.fleet.entries(migration_id))
        return (draw_svg if svg else draw)(record.migration, items)

    async def trace(self, migration_id: str) -> Trace:
        """The trace as far as its journals have been read. Raises NotFound."""
        record = await self.fleet.migration(migration_id)
        entries = await self.fleet.entries(migration_id)
        return trace_of(record.migration, entries, record.status, record.reason, record.error)

    async def event_batches(self, migration_id: str | None, after: int | None) -> AsyncIterator[list[Event]]:
        """See Events.batches."""
        async for batch in self.events.batches(migration_id, after):
            yield batch

    async def follow(self, migration_id: str | None, after: int | None) -> AsyncIterator[Event]:
        """See Events.follow."""
        async for event in self.events.follow(migration_id, after):
            yield event
