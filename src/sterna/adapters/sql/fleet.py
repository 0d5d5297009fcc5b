"""The controller's records in SQL: implements ports.fleet.Fleet.

Each method is one transaction, run on this class's own threads (one for SQLite, which has one writer anyway), so
that a slow database never holds up the event loop. Those that write take turns, on PostgreSQL too (`take_turn`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, Engine, delete, func, insert, or_, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql.fleet_database import open_database, take_turn, told
from sterna.adapters.sql.fleet_schema import entries, hosts, migrations, vms
from sterna.domain.errors import Conflict, NotFound, Unreachable
from sterna.domain.journal import Entry, Migration, Role, accepted_migration
from sterna.domain.model import GuestState, HostFacts, JobSample, VmSummary
from sterna.domain.progress import with_sample, with_status
from sterna.domain.status import Status
from sterna.kit.daemon_threads import DaemonThreads
from sterna.kit.threads import in_thread
from sterna.ports.fleet import (
    Apply,
    Batch,
    Effect,
    EntryRecord,
    HostRecord,
    MigrationRecord,
    Page,
    VmRecord,
    mark_of,
)

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_S = 30.0
"""For one transaction, its place in the queue included: a database that hangs must not collect requests."""
CLOSE_S = 15.0
"""PostgreSQL's longest answer, and a little."""

log = structlog.get_logger(__name__)


class SqlFleet:
    """Records behind one engine."""

    def __init__(self, engine: Engine, threads: Callable[[int, str], DaemonThreads] = DaemonThreads) -> None:
        self._engine = engine
        self._writer = threads(1, "fleet-writer")
        in_one = engine.dialect.name == "sqlite"
        self._readers = self._writer if in_one else threads(3, "fleet-reader")

    @classmethod
    def open(cls, url: str) -> SqlFleet:
        """Records at `url`, tables brought up to date. Raises as `open_database` does."""
        return cls(open_database(url))

    async def _run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def transaction() -> T:
            with told(), self._engine.begin() as connection:
                return work(connection, *args, **kwargs)

        return await _answered(self._readers, transaction)

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def transaction() -> T:
            with told(), self._engine.begin() as connection:
                take_turn(connection)
                return work(connection, *args, **kwargs)

        return await _answered(self._writer, transaction)

    async def close(self) -> None:
        """Finish what was begun, then let the database go; one that hangs is left after CLOSE_S."""
        try:
            await in_thread(self._end, name="fleet-end", limit_s=CLOSE_S)
        except TimeoutError:
            log.warning("the database hangs: what was begun there is left", after_s=CLOSE_S)

    def _end(self) -> None:
        for threads in (self._writer, self._readers):
            threads.end()
        self._engine.dispose()

    async def hosts(self) -> list[HostRecord]:
        """All hosts ever accepted, by name."""
        return await self._run(_hosts)

    async def host(self, name: str) -> HostRecord:
        """Raises NotFound."""
        return await self._run(_required_host, name)

    async def save_host(self, facts: HostFacts, boot: str, at: str) -> HostRecord:
        """Store what a beacon said. Raises Conflict on another host UUID."""
        return await self._write(_save_host, facts, boot, at)

    async def set_maintenance(self, name: str, on: bool) -> HostRecord:
        """Raises NotFound."""
        return await self._write(_set_maintenance, name, on)

    async def set_dead(self, name: str, at: str) -> HostRecord:
        """Raises NotFound."""
        return await self._write(_set_dead, name, at)

    async def vms(self) -> list[VmRecord]:
        """All VMs as last seen."""
        return await self._run(_vms)

    async def vms_called(self, name_or_uuid: str) -> list[VmRecord]:
        """The VM of that UUID, else all of that name."""
        return await self._run(_vms_called, name_or_uuid)

    async def saw_vms(self, host: str, vms: Sequence[VmSummary], at: str) -> None:
        """The complete list of one host's VMs."""
        await self._write(_saw_vms, host, vms, at)

    async def admit(self, migration: Migration, at: str) -> tuple[MigrationRecord, bool]:
        """Take the VM and record the request. Raises Conflict."""
        return await self._write(_admit, migration, at)

    async def accepted(self, migration: Migration, at: str) -> MigrationRecord:
        """The source has it. Raises NotFound."""
        return await self._write(_accepted, migration, at)

    async def withdraw(self, migration_id: str) -> None:
        """Forget a request that no agent accepted."""
        await self._write(_withdraw, migration_id)

    async def settle(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a request that no agent accepted."""
        await self._write(_settle, migration_id, status, reason, at)

    async def write_off(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a migration whose source is dead."""
        await self._write(_write_off, migration_id, status, reason, at)

    async def explain(self, migration_id: str, reason: str, at: str) -> None:
        """Say what is being waited for."""
        await self._write(_explain, migration_id, reason, at)

    async def migration(self, migration_id: str) -> MigrationRecord:
        """Raises NotFound."""
        return await self._run(_required, migration_id)

    async def migrations(self, page: Page) -> list[MigrationRecord]:
        """Newest first."""
        return await self._run(_page, page)

    async def take(self, batch: Batch, apply: Apply, at: str) -> list[EntryRecord]:
        """Store new entries and what they change. Raises NotFound."""
        return await self._write(_take, batch, apply, at)

    async def reread(self, host: str) -> None:
        """Read the host's journal from its beginning."""
        again = {"cursor": 0, "mark": "", "generation": hosts.c.generation + 1}
        await self._write(lambda c: c.execute(update(hosts).where(hosts.c.name == host).values(again)))

    async def sampled(self, migration_id: str, sample: JobSample) -> MigrationRecord | None:
        """Progress after one more look."""
        return await self._write(_sampled, migration_id, sample)

    async def entries(self, migration_id: str) -> list[Entry]:
        """Both hosts' entries of one migration."""
        query = select(entries).where(entries.c.migration_id == migration_id).order_by(entries.c.id)
        found = await self._run(lambda c: [rows.entry(r).entry for r in c.execute(query)])
        return list({(e.role, e.boot, e.seq): e for e in found}.values())  # a journal read twice is told once

    async def events(self, after: int, migration_id: str | None = None, limit: int = 200) -> list[EntryRecord]:
        """Stored entries with a greater id."""
        query = select(entries).where(entries.c.id > after).order_by(entries.c.id).limit(limit)
        if migration_id is not None:
            query = query.where(entries.c.migration_id == migration_id)
        return await self._run(lambda c: [rows.entry(r) for r in c.execute(query)])

    async def last_event(self) -> int:
        """The greatest id."""
        return await self._run(lambda c: int(c.execute(select(func.max(entries.c.id))).scalar() or 0))


async def _answered(threads: DaemonThreads, transaction: Callable[[], T]) -> T:
    """Its result. What has not begun after ANSWER_S never begins; whether what has begun was done is not known.

    Raises Unreachable then.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asyncio.wrap_future(threads.submit(transaction))
    except TimeoutError as error:
        why = f"the controller's database does not answer within {ANSWER_S:g} s"
        raise Unreachable(why, fix="see that it runs, and that its disk answers") from error


# ------------------------------------------------------------ hosts


def _hosts(c: Connection) -> list[HostRecord]:
    found = [rows.host(r) for r in c.execute(select(hosts))]
    return sorted(found, key=lambda h: h.name)  # here: databases differ in how they order words


def _host(c: Connection, name: str) -> HostRecord | None:
    found = c.execute(select(hosts).where(hosts.c.name == name)).first()
    return rows.host(found) if found else None


def _required_host(c: Connection, name: str) -> HostRecord:
    found = _host(c, name)
    if found is None:
        raise NotFound(f"there is no host {name}", fix="`sterna hosts` lists them")
    return found


def _save_host(c: Connection, facts: HostFacts, boot: str, at: str) -> HostRecord:
    old = _host(c, facts.name)
    if old is None:
        new = HostRecord(facts=facts, boot=boot, seen_at=at)
        c.execute(insert(hosts).values(**rows.host_values(new)))
        return new
    if old.facts.host_uuid != facts.host_uuid:
        raise Conflict(
            f"the name {facts.name} belongs to host {old.facts.host_uuid}; host {facts.host_uuid} uses it too",
            fix="give one of them another name in its agent's settings",
        )
    back = old.back_at or at if old.dead_at else ""
    new = old.model_copy(update={"facts": facts, "boot": boot, "seen_at": at, "back_at": back})
    c.execute(update(hosts).where(hosts.c.name == facts.name).values(document=rows.host_values(new)["document"]))
    return new


def _set_maintenance(c: Connection, name: str, on: bool) -> HostRecord:
    old = _required_host(c, name)
    c.execute(update(hosts).where(hosts.c.name == name).values(maintenance=on))
    return old.model_copy(update={"maintenance": on})


def _set_dead(c: Connection, name: str, at: str) -> HostRecord:
    new = _required_host(c, name).model_copy(update={"dead_at": at, "back_at": ""})
    c.execute(update(hosts).where(hosts.c.name == name).values(document=rows.host_values(new)["document"]))
    return new


# ------------------------------------------------------------ VMs


def _vms(c: Connection) -> list[VmRecord]:
    return sorted((rows.vm(r) for r in c.execute(select(vms))), key=lambda v: (v.name, v.uuid))


def _vms_called(c: Connection, name_or_uuid: str) -> list[VmRecord]:
    for column, value in ((vms.c.uuid, name_or_uuid.lower()), (vms.c.name, name_or_uuid)):
        found = [rows.vm(r) for r in c.execute(select(vms).where(column == value).order_by(vms.c.uuid))]
        if found:
            return found
    return []


def _saw_vms(c: Connection, host: str, seen: Sequence[VmSummary], at: str) -> None:
    here = {s.uuid for s in seen}
    concerned = select(vms).where(or_(vms.c.host == host, vms.c.uuid.in_(here)))
    known = {r.uuid: rows.vm(r) for r in c.execute(concerned)}
    for summary in seen:
        old = known.get(summary.uuid)
        if old is not None and old.host != host and old.migration_id is not None:
            continue  # the copy that is still arriving: F8 will say that the VM has moved
        if old is not None and old.host != host and summary.state is not GuestState.RUNNING:
            continue  # a definition left over elsewhere is not where the VM is
        _put_vm(c, old, rows.seen_vm(old, host, summary, at))
    gone = [v.uuid for v in known.values() if v.host == host and v.uuid not in here and v.migration_id is None]
    if gone:
        c.execute(delete(vms).where(vms.c.uuid.in_(gone)))


def _vm(c: Connection, uuid: str) -> VmRecord | None:
    found = c.execute(select(vms).where(vms.c.uuid == uuid)).first()
    return rows.vm(found) if found else None


def _put_vm(c: Connection, old: VmRecord | None, new: VmRecord) -> None:
    if old is None:
        c.execute(insert(vms).values(**rows.vm_values(new)))
    elif new != old:
        c.execute(update(vms).where(vms.c.uuid == new.uuid).values(**rows.vm_values(new)))


def _free(c: Connection, migration_id: str) -> None:
    c.execute(update(vms).where(vms.c.migration_id == migration_id).values(migration_id=None))


# ------------------------------------------------------------ migrations


def _known(c: Connection, migration_id: str) -> MigrationRecord | None:
    found = c.execute(select(migrations).where(migrations.c.id == migration_id)).first()
    return rows.migration(found) if found else None


def _required(c: Connection, migration_id: str) -> MigrationRecord:
    found = _known(c, migration_id)
    if found is None:
        raise NotFound(f"there is no migration {migration_id}", fix="`sterna migrations` lists them")
    return found


def _insert(c: Connection, record: MigrationRecord) -> MigrationRecord:
    done = c.execute(insert(migrations).values(**rows.migration_values(record)))
    key = done.inserted_primary_key
    return record.model_copy(update={"number": int(key[0]) if key else 0})


def _save(c: Connection, record: MigrationRecord) -> None:
    values = rows.migration_values(record)
    c.execute(update(migrations).where(migrations.c.id == record.id).values(**values))


def _admit(c: Connection, migration: Migration, at: str) -> tuple[MigrationRecord, bool]:
    known = _known(c, migration.id)
    if known is not None:
        return known, True
    vm = _vm(c, migration.vm_uuid)
    if vm is None:
        vm = VmRecord(
            uuid=migration.vm_uuid, name=migration.vm_name, host=migration.source, state=GuestState.UNKNOWN
        )
        _put_vm(c, None, vm)
    swap = update(vms).where(vms.c.uuid == vm.uuid, vms.c.migration_id.is_(None)).values(migration_id=migration.id)
    if c.execute(swap).rowcount != 1:
        holder = c.execute(select(vms.c.migration_id).where(vms.c.uuid == vm.uuid)).scalar()
        raise Conflict(
            f"{migration.vm_name} is in migration {holder} already", fix=f"wait for it, or `sterna abort {holder}`"
        )
    return _insert(c, MigrationRecord(migration=migration, reason="asking the source", updated_at=at)), False


def _accepted(c: Connection, migration: Migration, at: str) -> MigrationRecord:
    known = _required(c, migration.id)
    if not known.accepted:
        known = known.model_copy(update={"migration": migration, "accepted": True, "updated_at": at})
        _save(c, known)
    return known


def _withdraw(c: Connection, migration_id: str) -> None:
    known = _known(c, migration_id)
    if known is not None and not known.accepted and not known.status.final:
        _free(c, migration_id)
        c.execute(delete(migrations).where(migrations.c.id == migration_id))


def _settle(c: Connection, migration_id: str, status: Status, reason: str, at: str) -> None:
    known = _known(c, migration_id)
    if known is not None and not known.accepted:
        _end(c, known, status, reason, at)


def _write_off(c: Connection, migration_id: str, status: Status, reason: str, at: str) -> None:
    known = _required(c, migration_id)
    if not known.status.final:
        _end(c, known.model_copy(update={"written_off": True}), status, reason, at)


def _end(c: Connection, known: MigrationRecord, status: Status, reason: str, at: str) -> None:
    progress = with_status(known.progress, status)
    change = {"status": status, "reason": reason, "progress": progress, "updated_at": at, "finished_at": at}
    _save(c, known.model_copy(update=change))
    _free(c, known.id)


def _explain(c: Connection, migration_id: str, reason: str, at: str) -> None:
    known = _known(c, migration_id)
    if known is not None and not known.accepted and not known.status.final:
        _save(c, known.model_copy(update={"reason": reason, "updated_at": at}))


def _page(c: Connection, page: Page) -> list[MigrationRecord]:
    query = select(migrations).order_by(migrations.c.number.desc()).limit(page.limit)
    if page.before is not None:
        query = query.where(migrations.c.number < page.before)
    if page.vm is not None:
        query = query.where(or_(migrations.c.vm_uuid == page.vm.lower(), migrations.c.vm_name == page.vm))
    if page.statuses:
        query = query.where(migrations.c.status.in_([s.value for s in page.statuses]))
    if page.id_prefix:
        query = query.where(migrations.c.id.startswith(page.id_prefix.lower(), autoescape=True))
    return [rows.migration(r) for r in c.execute(query)]


def _sampled(c: Connection, migration_id: str, sample: JobSample) -> MigrationRecord | None:
    known = _known(c, migration_id)
    if known is None:
        return None
    new = known.model_copy(update={"progress": with_sample(known.progress, sample)})
    if new != known:
        _save(c, new)
    return new


# ------------------------------------------------------------ what the journals say


def _take(c: Connection, batch: Batch, apply: Apply, at: str) -> list[EntryRecord]:
    host = _required_host(c, batch.host)
    known = {m.id: m for m in batch.migrations}
    stored = []
    cursor, mark = host.cursor, host.mark
    for entry in batch.entries:
        if entry.seq <= cursor:
            continue
        cursor, mark = entry.seq, mark_of(entry)
        if not _own(c, known, batch.host, entry):
            continue
        values: dict[str, Any] = rows.entry_values(batch.host, host.generation, entry)
        key = c.execute(insert(entries).values(**values)).inserted_primary_key
        stored.append(EntryRecord(id=int(key[0]) if key else 0, host=batch.host, entry=entry))
        _project(c, known, apply, batch.host, entry, at)
    c.execute(update(hosts).where(hosts.c.name == batch.host).values(cursor=cursor, mark=mark))
    return stored


def _own(c: Connection, known: dict[str, Migration], host: str, entry: Entry) -> bool:
    """Is this host the source (or the destination) of the migration that the entry is about? Another host's word
    on it would change records, timelines and reports."""
    record = _known(c, entry.migration_id)
    migration = record.migration if record else known.get(entry.migration_id) or accepted_migration(entry)
    return migration is None or host == (migration.source if entry.role is Role.SOURCE else migration.destination)


def _project(c: Connection, known: dict[str, Migration], apply: Apply, host: str, entry: Entry, at: str) -> None:
    record = _known(c, entry.migration_id)
    if record is None:
        migration = known.get(entry.migration_id) or accepted_migration(entry)
        if migration is None:
            return  # an entry about nothing: kept, but there is no record to change
        record = _insert(c, MigrationRecord(migration=migration, updated_at=at))
    effect = apply(record, host, entry)
    if effect.record != record:
        _save(c, effect.record.model_copy(update={"updated_at": at}))
    _change_vm(c, effect, at)


def _change_vm(c: Connection, effect: Effect, at: str) -> None:
    migration = effect.record.migration
    if effect.holds is False:
        _free(c, migration.id)
    if effect.vm is None and not effect.holds:
        return
    old = _vm(c, migration.vm_uuid)
    new = old or VmRecord(
        uuid=migration.vm_uuid, name=migration.vm_name, host=migration.source, state=GuestState.UNKNOWN
    )
    if effect.holds:
        new = new.model_copy(update={"migration_id": migration.id})
    if effect.vm is not None:
        new = new.model_copy(update={"host": effect.vm.host, "state": effect.vm.state, "observed_at": at})
    _put_vm(c, old, new)
