"""What a page of one host's journal changes in the controller's records, on a connection. Called by `fleet.py`."""

from __future__ import annotations

import json
from collections import defaultdict

import structlog
from sqlalchemy import Connection, func, insert, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql.fleet_schema import entries, hosts, migrations, sightings
from sterna.adapters.sql.fleet_statements import (
    free,
    insert_migration,
    known_vm,
    note_closed,
    put_vm,
    save_migration,
)
from sterna.adapters.sql.host_statements import known_host, required_host
from sterna.adapters.sql.sighting_statements import arrived as arrived_at_home
from sterna.domain.journal import Entry, Migration, Role
from sterna.domain.model import GuestState, Value
from sterna.domain.trust.bounds import Load
from sterna.domain.trust.journals import (
    Place,
    is_full,
    is_settlement,
    may_begin_hold,
    may_end_there,
    may_hold,
    may_move,
    place_for,
)
from sterna.ports.fleet import (
    Apply,
    Batch,
    Effect,
    EntryRecord,
    MigrationRecord,
    VmRecord,
    mark_of,
)

log = structlog.get_logger(__name__)


def take(c: Connection, batch: Batch, apply: Apply, at: str) -> list[EntryRecord]:
    """See ports.fleet.Fleet.take."""
    host = required_host(c, batch.host)
    page, stored = _Page(c, batch, at), []
    cursor, mark = host.cursor, host.mark
    for entry in batch.entries:
        if entry.seq <= cursor:
            continue
        cursor, mark = entry.seq, mark_of(entry)
        record = page.about(entry)
        place = Place.DROPPED if record is None else page.place(record, entry)
        if record is None or place is Place.DROPPED:
            continue
        if place is Place.STORED:
            values = rows.entry_values(batch.host, host.generation, entry)
            key = c.execute(insert(entries).values(**values)).inserted_primary_key
            stored.append(EntryRecord(id=int(key[0]) if key else 0, host=batch.host, entry=entry))
        effect = apply(record, batch.host, entry) if _counts(c, record, entry) else Effect(record=record)
        if effect.record != record:
            save_migration(c, record, effect.record.model_copy(update={"updated_at": at}), at)
        _change_vm(c, effect, at)
    page.count()
    c.execute(update(hosts).where(hosts.c.name == batch.host).values(cursor=cursor, mark=mark))
    return stored


def _counts(c: Connection, record: MigrationRecord, entry: Entry) -> bool:
    """Not how a migration ended by its destination's word, while its source may know better."""
    if not is_settlement(entry):
        return True
    source = known_host(c, record.migration.source)
    if source is None or source.dead_at:  # records that were lost know of no declaration
        return True
    log.warning("a destination says how a migration ended, and its source is not dead", migration=record.id)
    return False


class _Page:
    """Which migrations its entries are about, and how much of them is stored."""

    def __init__(self, c: Connection, batch: Batch, at: str) -> None:
        self._c, self._batch, self._at = c, batch, at
        self._halves: dict[tuple[str, Role], int] = {}
        """What was stored of each before."""
        self._added: defaultdict[tuple[str, Role], int] = defaultdict(int)
        self._reported: dict[str, Load] = {}
        """By host, what is stored of the migrations that it has reported."""
        self._not_stored = 0

    def about(self, entry: Entry) -> MigrationRecord | None:
        """The migration that the entry is about, new where it was not known.

        None where it is unknown, or where this host is not its source (or its destination): such an entry would
        change records, timelines and reports. Also for one more that no controller has asked for, where there are
        too many already.
        """
        row = self._c.execute(select(migrations).where(migrations.c.id == entry.migration_id)).first()
        known = rows.migration(row) if row else None
        migration = known.migration if known else self._batch.told(entry)
        if migration is None or not self._is_of(migration, entry.role):
            return None
        if known is None or row is None:
            return self._new(migration, entry.role)
        for role, stored in ((Role.SOURCE, row.source_bytes), (Role.DESTINATION, row.destination_bytes)):
            self._halves.setdefault((known.id, role), stored)
        return self._requested(known, entry)

    def _is_of(self, migration: Migration, role: Role) -> bool:
        """Is this host that half of it?"""
        return self._batch.host == (migration.source if role is Role.SOURCE else migration.destination)

    def _new(self, migration: Migration, role: Role) -> MigrationRecord | None:
        by = "" if migration.id in self._batch.permitted else self._batch.host
        if by and is_full(self._reported_by(by)):
            self._not_stored += 1
            return None
        if by:
            self._reported[by] = self._reported_by(by).plus(0)
        record = insert_migration(
            self._c, MigrationRecord(migration=migration, reported_by=by, updated_at=self._at)
        )
        self._add(record, role, _size(migration))
        return record

    def _requested(self, known: MigrationRecord, entry: Entry) -> MigrationRecord:
        """The record, with what a permit proves."""
        if not known.reported_by or known.id not in self._batch.permitted:
            return known
        told, record = self._batch.told(entry), known.migration
        if told is None or not told.is_about_the_same(record):
            return known
        proven = known.model_copy(update={"reported_by": ""})
        save_migration(self._c, known, proven, self._at)
        return proven

    def place(self, record: MigrationRecord, entry: Entry) -> Place:
        """What becomes of the entry; counts it where it is stored."""
        size, by = _size(entry), record.reported_by
        key = record.id, entry.role
        half = self._halves.get(key, 0) + self._added[key]
        place = place_for(size, half, self._reported_by(by) if by else None)
        if place is Place.STORED:
            self._add(record, entry.role, size)
        else:
            self._not_stored += 1
        return place

    def _add(self, record: MigrationRecord, role: Role, size: int) -> None:
        self._added[record.id, role] += size
        if by := record.reported_by:
            number, stored = self._reported_by(by)
            self._reported[by] = Load(number, stored + size)

    def _reported_by(self, host: str) -> Load:
        if host not in self._reported:
            size = func.sum(migrations.c.source_bytes + migrations.c.destination_bytes)
            query = select(func.count(), size).where(migrations.c.reported_by == host)
            number, stored = self._c.execute(query).one()
            self._reported[host] = Load(int(number), int(stored or 0))
        return self._reported[host]

    def count(self) -> None:
        """Keep how much is stored."""
        for (id, role), size in self._added.items():
            column = migrations.c.source_bytes if role is Role.SOURCE else migrations.c.destination_bytes
            if size:
                grown = {column.name: column + size}
                self._c.execute(update(migrations).where(migrations.c.id == id).values(grown))
        for id in {id for id, _ in self._added}:
            note_closed(self._c, id, self._at)
        if self._not_stored:
            host, number = self._batch.host, self._not_stored
            log.warning("this host's journal has more than is stored of one host", host=host, entries=number)


def _size(value: Value) -> int:
    """As it is stored."""
    return len(json.dumps(value.model_dump(mode="json")))


def _change_vm(c: Connection, effect: Effect, at: str) -> None:
    migration, change = effect.record.migration, effect.vm
    old = known_vm(c, migration.vm_uuid)
    if change is not None and change.holder and (old is None or old.migration_id != change.holder):
        change = None
    place, holder = (old.host, old.migration_id) if old else (None, None)
    holds = bool(effect.holds) and may_hold(migration, place, holder)
    if not may_move(migration, place, holder, accepted=effect.record.accepted):
        change = None
    if (holds or change is not None) and effect.record.reported_by:
        seen = _seen(c, migration)
        holds = holds and may_begin_hold(migration, seen)
        change = change if may_end_there(migration, seen) else None
    if change is not None or holds:
        new = old or VmRecord(
            uuid=migration.vm_uuid, name=migration.vm_name, host=migration.source, state=GuestState.UNKNOWN
        )
        if holds:
            new = new.model_copy(update={"migration_id": migration.id})
        if change is not None:
            state = new.state if change.state is None else change.state
            new = new.model_copy(update={"host": change.host, "state": state, "observed_at": at})
            arrived_at_home(c, new, told=change.state is not None)
        put_vm(c, old, new)
    if effect.holds is False:
        free(c, migration.id, at)


def _seen(c: Connection, migration: Migration) -> dict[str, GuestState]:
    """What each host says of its VM."""
    query = select(sightings.c.host, sightings.c.state).where(sightings.c.uuid == migration.vm_uuid)
    return {row.host: GuestState(row.state) for row in c.execute(query)}
