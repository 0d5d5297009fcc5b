"""The controller's records in SQL: implements ports.fleet.Fleet.

Each method is one transaction, run on this class's own threads (one for SQLite, which has one writer anyway), so
that a slow database never holds up the event loop. Those that write take turns, on PostgreSQL too (`take_turn`);
those that wait for the thread share a turn and a commit (`group_commit.py`). What each transaction does is in
`*_statements.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, Engine, func, select, update

from sterna.adapters.sql import count_statements as numbers
from sterna.adapters.sql import entry_statements as on_entries
from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql import fleet_statements as statements
from sterna.adapters.sql import host_statements as on_hosts
from sterna.adapters.sql import operation_statements as on_operations
from sterna.adapters.sql import prune_statements as prunes
from sterna.adapters.sql import rolling_statements as on_rolling
from sterna.adapters.sql import rule_statements as on_rules
from sterna.adapters.sql import sighting_statements as sighted
from sterna.adapters.sql import step_statements as on_steps
from sterna.adapters.sql.access_records import SqlAccess
from sterna.adapters.sql.fleet_database import open_database, own_errors
from sterna.adapters.sql.fleet_schema import entries, hosts
from sterna.adapters.sql.group_commit import GroupCommit
from sterna.adapters.sql.notification_records import SqlNotifications
from sterna.domain.errors import Unreachable
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.rule_checks import Placed, RuleFacts
from sterna.domain.fleet.rules import Rule
from sterna.domain.fleet.stages import Change, HostStep
from sterna.domain.hosts import HostFacts
from sterna.domain.journal import Entry, Migration
from sterna.domain.progress import Progress
from sterna.domain.sightings import Mark, News
from sterna.domain.status import Status
from sterna.kit.daemon_threads import DaemonThreads
from sterna.kit.threads import in_thread
from sterna.ports.fleet import (
    Apply,
    Batch,
    EntryRecord,
    FleetCounts,
    HostRecord,
    MigrationRecord,
    Page,
    Taken,
    VmPage,
    VmRecord,
)
from sterna.ports.operations import Decision, OperationPage, OperationRecord, Seen, Standing, Tried

P = ParamSpec("P")
T = TypeVar("T")
ANSWER_S = 30.0
"""For one transaction, its place in the queue included: a database that hangs must not collect requests."""
CLOSE_S = 15.0
"""PostgreSQL's longest answer, and a little."""
log = structlog.get_logger(__name__)


class SqlFleet(SqlAccess, SqlNotifications):
    """Records behind one engine."""

    def __init__(self, engine: Engine, threads: Callable[[int, str], DaemonThreads] = DaemonThreads) -> None:
        self._engine = engine
        self._writer = threads(1, "fleet-writer")
        in_one = engine.dialect.name == "sqlite"
        self._readers = self._writer if in_one else threads(3, "fleet-reader")
        self._known_hosts: on_hosts.KnownHosts = {}
        self._group_commit = GroupCommit(engine, self._writer)

    @classmethod
    def open(cls, url: str) -> SqlFleet:
        """Records at `url`, tables brought up to date. Raises as `open_database` does."""
        return cls(open_database(url))

    async def _run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def transaction() -> T:
            with own_errors(), self._engine.begin() as connection:
                return work(connection, *args, **kwargs)

        return await _answered(self._readers.submit(transaction))

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        answer: Future[T] = self._group_commit.submit(lambda connection: work(connection, *args, **kwargs))
        return await _answered(answer)

    async def close(self) -> None:
        """Finish what was begun, then let the database go; one that hangs is left after CLOSE_S."""
        try:
            await in_thread(self._end, name="fleet-end", limit_s=CLOSE_S)
        except TimeoutError:
            log.warning("the database hangs; its pending work is abandoned", after_s=CLOSE_S)

    def _end(self) -> None:
        for threads in (self._writer, self._readers):
            threads.end()
        self._engine.dispose()

    async def hosts(self) -> list[HostRecord]:
        """All hosts ever accepted, by name."""
        self._known_hosts = known = await self._run(on_hosts.all_hosts, self._known_hosts)
        return [record for _, record in known.values()]

    async def host(self, name: str) -> HostRecord:
        """Raises NotFound."""
        return await self._run(on_hosts.required_host, name)

    async def save_host(self, facts: HostFacts, boot: str, at: str) -> HostRecord:
        """Store a beacon. Raises Conflict on another host UUID."""
        return await self._write(on_hosts.save_host, facts, boot, at)

    async def set_maintenance(self, name: str, on: bool, reason: str = "") -> HostRecord:
        """Raises NotFound; Conflict where an operation keeps the host closed."""
        return await self._write(on_operations.set_maintenance, name, on, reason)

    async def pin_host(self, name: str, host_uuid: str) -> HostRecord:
        """Raises NotFound, Conflict."""
        return await self._write(on_hosts.pin, name, host_uuid)

    async def set_dead(self, name: str, at: str) -> HostRecord:
        """Raises NotFound."""
        return await self._write(on_hosts.set_dead, name, at)

    async def vms(self) -> list[VmRecord]:
        """All VMs as last seen."""
        return await self._run(statements.all_vms)

    async def vms_called(self, name_or_uuid: str) -> list[VmRecord]:
        """The VM of that UUID, else all of that name."""
        return await self._run(statements.vms_called, name_or_uuid)

    async def page_of_vms(self, page: VmPage) -> list[VmRecord]:
        """By name and UUID."""
        return await self._run(sighted.page_of_vms, page)

    async def take_news(self, told: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        """What hosts say of their VMs."""
        return await self._write(sighted.take_news, told, asked, at)

    async def marks(self) -> dict[str, Mark]:
        """Up to where each host's list has been taken."""
        return await self._run(sighted.marks)

    async def digest_in_records(self, host: str) -> str:
        """Of the list as it is stored."""
        return await self._run(sighted.digest_in_records, host)

    async def admit(
        self, migration: Migration, at: str, up: Collection[str] | None = None
    ) -> tuple[MigrationRecord, bool]:
        """Take the VM and record the request. Raises Conflict, Refused."""
        return await self._write(statements.admit, migration, at, up)

    async def accepted(self, migration: Migration, at: str) -> MigrationRecord:
        """The source has it. Raises NotFound."""
        return await self._write(statements.accepted, migration, at)

    async def promise(self, migration_id: str) -> MigrationRecord | None:
        """See ports.fleet.Fleet.promise."""
        return await self._write(statements.promise, migration_id)

    async def withdraw(self, migration_id: str, reason: str, at: str) -> None:
        """Forget a request that no agent accepted."""
        await self._write(statements.withdraw, migration_id, reason, at)

    async def settle(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a request that no agent accepted."""
        await self._write(statements.settle, migration_id, status, reason, at)

    async def write_off(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a migration whose source is dead."""
        await self._write(statements.write_off, migration_id, status, reason, at)

    async def explain(self, migration_id: str, reason: str, at: str) -> None:
        """Say what is being waited for."""
        await self._write(statements.explain, migration_id, reason, at)

    async def migration(self, migration_id: str) -> MigrationRecord:
        """Raises NotFound."""
        return await self._run(statements.required_migration, migration_id)

    async def migrations(self, page: Page) -> list[MigrationRecord]:
        """Newest first."""
        return await self._run(statements.page, page)

    async def take(self, batch: Batch, apply: Apply, at: str) -> list[EntryRecord]:
        """Store new entries and what they change. Raises NotFound."""
        return await self._write(on_entries.take, batch, apply, at)

    async def reread(self, host: str) -> None:
        """Read the host's journal from its beginning."""
        again = {"cursor": 0, "mark": "", "generation": hosts.c.generation + 1}
        await self._write(lambda c: c.execute(update(hosts).where(hosts.c.name == host).values(again)))

    async def save_progress(self, progress: Mapping[str, Progress]) -> None:
        """Of running copies."""
        await self._write(statements.save_progress, progress)

    async def entries(self, migration_id: str) -> list[Entry]:
        """Both hosts' entries of one migration."""
        query = select(entries).where(entries.c.migration_id == migration_id).order_by(entries.c.id)
        found = await self._run(lambda c: [rows.entry(r).entry for r in c.execute(query)])
        return list({(e.role, e.boot, e.seq): e for e in found}.values())  # one read twice is returned once

    async def events(self, after: int, migration_id: str | None = None, limit: int = 200) -> list[EntryRecord]:
        """Stored entries with a greater id."""
        query = select(entries).where(entries.c.id > after).order_by(entries.c.id).limit(limit)
        if migration_id is not None:
            query = query.where(entries.c.migration_id == migration_id)
        return await self._run(lambda c: [rows.entry(r) for r in c.execute(query)])

    async def last_event(self) -> int:
        """The greatest id."""
        return await self._run(lambda c: int(c.execute(select(func.max(entries.c.id))).scalar() or 0))

    async def add_operation(
        self, operation: OperationRecord, up: Collection[str] | None = None
    ) -> tuple[OperationRecord, bool]:
        """Record it and close its hosts. Raises NotFound, Conflict, Refused."""
        return await self._write(on_operations.add, operation, up)

    async def counts(self) -> FleetCounts:
        """How many there are of what."""
        return await self._run(numbers.counts)

    async def operation(self, id: str) -> OperationRecord:
        """Raises NotFound."""
        return await self._run(on_operations.required, id)

    async def operations(self, page: OperationPage) -> list[OperationRecord]:
        """Newest first."""
        return await self._run(on_operations.page, page)

    async def unfinished_operations(self) -> list[OperationRecord]:
        """Oldest first."""
        return await self._run(on_operations.unfinished)

    async def order_operation(
        self, id: str, order: Order, by: str, at: str, up: Collection[str] | None = None
    ) -> OperationRecord:
        """Raises NotFound, Conflict, Refused."""
        return await self._write(on_operations.order, id, order, by, at, up)

    async def take_operation(self, known: OperationRecord, holder: str) -> OperationRecord | None:
        """Hold it, unless somebody was faster."""
        return await self._write(on_operations.take, known, holder)

    async def keep_operation(self, id: str, epoch: int) -> OperationRecord | None:
        """Still hold it."""
        return await self._write(on_operations.keep, id, epoch)

    async def release_operation(self, id: str, epoch: int) -> None:
        """Hold it no more."""
        await self._write(on_operations.release, id, epoch)

    async def attempts(self, operation: str) -> list[Tried]:
        """In the order in which they were decided."""
        return await self._run(on_operations.tried, operation)

    async def active_attempts(self) -> list[Attempt]:
        """Those that have not ended."""
        return await self._run(on_operations.active)

    async def moved_away(self, hosts: Collection[str]) -> tuple[Return, ...]:
        """By all attempts that are known."""
        return await self._run(on_operations.away, hosts)

    async def decide(self, decision: Decision) -> tuple[Attempt, ...]:
        """Write those that are not out of date."""
        return await self._write(on_operations.decide, decision)

    async def settle_attempt(
        self, attempt: Attempt, epoch: int, state: AttemptState, *, reason: str, blame: Blame, at: str
    ) -> Attempt | None:
        """It has come so far."""
        return await self._write(on_operations.settle, attempt, epoch, state, reason=reason, blame=blame, at=at)

    async def stand(self, id: str, epoch: int, standing: Standing) -> None:
        """How it stands."""
        await self._write(on_operations.stand, id, epoch, standing)

    async def host_steps(self, operation: str) -> list[HostStep]:
        """By name."""
        return await self._run(on_steps.steps, operation)

    async def advance_hosts(
        self,
        known: OperationRecord,
        changes: Sequence[Change],
        pause: str = "",
        seen: Seen | None = None,
        at: str = "",
    ) -> bool:
        """Write how far hosts are, unless that is out of date. Raises Refused."""
        return await self._write(on_rolling.advance, known, changes, pause, seen, at)

    async def host_done(self, id: str, host: str, by: str, at: str) -> OperationRecord:
        """Raises NotFound, Conflict."""
        return await self._write(on_rolling.done, id, host, by, at)

    async def conclude(
        self,
        known: OperationRecord,
        status: OperationStatus,
        standing: Standing,
        at: str,
        empty: Collection[str] = (),
    ) -> bool:
        """End it, unless that is out of date."""
        return await self._write(on_operations.conclude, known, status, standing, at, empty)

    async def rules(self) -> list[Rule]:
        """All of them, by name."""
        return await self._run(on_rules.all_rules)

    async def rule(self, name: str) -> Rule:
        """Raises NotFound."""
        return await self._run(on_rules.required_rule, name)

    async def put_rule(self, rule: Rule, *, replace: bool) -> tuple[Rule, bool]:
        """Create or replace it. Raises Conflict."""
        return await self._write(on_rules.put, rule, replace=replace)

    async def remove_rule(self, name: str) -> Rule:
        """Raises NotFound."""
        return await self._write(on_rules.remove, name)

    async def rule_facts(self, uuid: str, name: str) -> RuleFacts:
        """What the rules about this VM need to be judged by."""
        return await self._run(on_rules.facts, uuid, name)

    async def placed(self, named: Collection[str]) -> list[Placed]:
        """All VMs with one of these names or UUIDs."""
        return await self._run(on_rules.placed, named)

    async def prune_migrations(self, before: str, spare: int) -> int:
        """Remove some old ones; how many."""
        return await self._write(prunes.prune_migrations, before, spare)

    async def old_operations(self, before: str) -> list[str]:
        """Those that may be removed."""
        return await self._run(prunes.old_operations, before)

    async def prune_operation(self, id: str, before: str) -> bool:
        """Remove it, unless it is needed again."""
        return await self._write(prunes.prune_operation, id, before)

    async def prune_log(self, before: str) -> int:
        """Remove some old lines; how many."""
        return await self._write(prunes.prune_log, before)


async def _answered(transaction: Future[T]) -> T:
    """Its result. What has not begun after ANSWER_S never begins; whether what has begun was done is not known.

    Raises Unreachable then.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asyncio.wrap_future(transaction)
    except TimeoutError as error:
        why = f"the controller's database does not answer within {ANSWER_S:g} s"
        raise Unreachable(why, fix="check that it runs, and that its disk answers") from error
