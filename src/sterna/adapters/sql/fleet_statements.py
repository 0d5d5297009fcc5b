"""What each transaction of the controller's records does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql.fleet_schema import migrations, vms
from sterna.adapters.sql.notes import note_migration
from sterna.adapters.sql.operation_statements import check_not_over
from sterna.adapters.sql.rule_statements import check_migration
from sterna.adapters.sql.sighting_statements import settle_homes
from sterna.adapters.sql.step_statements import refuse_closed
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.journal import Migration
from sterna.domain.model import GuestState
from sterna.domain.progress import Progress, with_status
from sterna.domain.status import Status
from sterna.ports.fleet import (
    MigrationRecord,
    Page,
    VmRecord,
)


def all_vms(c: Connection) -> list[VmRecord]:
    """See ports.fleet.Fleet.vms."""
    return sorted((rows.vm(r) for r in c.execute(select(vms))), key=lambda v: (v.name, v.uuid))


def vms_called(c: Connection, name_or_uuid: str) -> list[VmRecord]:
    """See ports.fleet.Fleet.vms_called."""
    for column, value in ((vms.c.uuid, name_or_uuid.lower()), (vms.c.name, name_or_uuid)):
        found = [rows.vm(r) for r in c.execute(select(vms).where(column == value).order_by(vms.c.uuid))]
        if found:
            return found
    return []


def known_vm(c: Connection, uuid: str) -> VmRecord | None:
    """None where there is none of that UUID."""
    found = c.execute(select(vms).where(vms.c.uuid == uuid)).first()
    return rows.vm(found) if found else None


def put_vm(c: Connection, old: VmRecord | None, new: VmRecord) -> None:
    """Store a VM, which was `old` before."""
    if old is None:
        c.execute(insert(vms).values(**rows.vm_values(new)))
    elif new != old:
        c.execute(update(vms).where(vms.c.uuid == new.uuid).values(**rows.vm_values(new)))


def free(c: Connection, migration_id: str, at: str) -> None:
    """The migration holds no VM any more."""
    held = [rows.vm(r) for r in c.execute(select(vms).where(vms.c.migration_id == migration_id))]
    for vm in held:
        changed_at = max(at, vm.changed_at)
        put_vm(c, vm, vm.model_copy(update={"migration_id": None, "changed_at": changed_at}))
    if held:
        settle_homes(c, [vm.uuid for vm in held], at)


def known_migration(c: Connection, migration_id: str) -> MigrationRecord | None:
    """None where there is none of that id."""
    found = c.execute(select(migrations).where(migrations.c.id == migration_id)).first()
    return rows.migration(found) if found else None


def required_migration(c: Connection, migration_id: str) -> MigrationRecord:
    """See ports.fleet.Fleet.migration."""
    found = known_migration(c, migration_id)
    if found is None:
        raise NotFound(f"there is no migration {migration_id}", fix="`sterna migrations` lists them")
    return found


def insert_migration(c: Connection, record: MigrationRecord) -> MigrationRecord:
    """Store a new one; with its number."""
    done = c.execute(insert(migrations).values(**rows.migration_values(record)))
    key = done.inserted_primary_key
    return record.model_copy(update={"number": int(key[0]) if key else 0})


def save_migration(c: Connection, was: MigrationRecord, now: MigrationRecord, at: str) -> None:
    """Store one that was known as `was`, and what is to be reported of the change."""
    values = rows.migration_values(now)
    c.execute(update(migrations).where(migrations.c.id == now.id).values(**values))
    note_migration(c, was, now, at)


def admit(
    c: Connection, migration: Migration, at: str, up: Collection[str] | None = None
) -> tuple[MigrationRecord, bool]:
    """See ports.fleet.Fleet.admit."""
    known = promise(c, migration.id)
    if known is not None:
        return known, True
    check_not_over(c, migration)
    if up is not None:
        check_migration(c, migration, up)
    refuse_closed(c, migration.destination)
    vm = known_vm(c, migration.vm_uuid)
    if vm is None:
        vm = VmRecord(
            uuid=migration.vm_uuid, name=migration.vm_name, host=migration.source, state=GuestState.UNKNOWN
        )
        put_vm(c, None, vm)
    swap = update(vms).where(vms.c.uuid == vm.uuid, vms.c.migration_id.is_(None)).values(migration_id=migration.id)
    if c.execute(swap).rowcount != 1:
        holder = c.execute(select(vms.c.migration_id).where(vms.c.uuid == vm.uuid)).scalar()
        raise Conflict(
            f"{migration.vm_name} is in migration {holder} already", fix=f"wait for it, or `sterna abort {holder}`"
        )
    new = MigrationRecord(migration=migration, reason="asking the source", updated_at=at)
    return insert_migration(c, new), False


def accepted(c: Connection, migration: Migration, at: str) -> MigrationRecord:
    """See ports.fleet.Fleet.accepted."""
    known = required_migration(c, migration.id)
    if not known.accepted:
        migration = migration.as_asked(known.migration)
        now = known.model_copy(update={"migration": migration, "accepted": True, "updated_at": at})
        save_migration(c, known, now, at)
        return now
    return known


def promise(c: Connection, migration_id: str) -> MigrationRecord | None:
    """See ports.fleet.Fleet.promise."""
    known = known_migration(c, migration_id)
    if known is not None and not known.promised and not known.accepted and not known.status.final:
        now = known.model_copy(update={"promised": True})
        save_migration(c, known, now, known.updated_at)
        return now
    return known


def withdraw(c: Connection, migration_id: str, reason: str, at: str) -> None:
    """See ports.fleet.Fleet.withdraw."""
    known = known_migration(c, migration_id)
    if known is None or known.accepted or known.status.final:
        return
    if known.promised:
        _end(c, known, Status.FAILED, reason, at)
    else:
        free(c, migration_id, at)
        c.execute(delete(migrations).where(migrations.c.id == migration_id))


def settle(c: Connection, migration_id: str, status: Status, reason: str, at: str) -> None:
    """See ports.fleet.Fleet.settle."""
    known = known_migration(c, migration_id)
    if known is not None and not known.accepted:
        _end(c, known, status, reason, at)


def write_off(c: Connection, migration_id: str, status: Status, reason: str, at: str) -> None:
    """See ports.fleet.Fleet.write_off."""
    known = required_migration(c, migration_id)
    if not known.status.final:
        _end(c, known.model_copy(update={"written_off": True}), status, reason, at)


def _end(c: Connection, known: MigrationRecord, status: Status, reason: str, at: str) -> None:
    progress = with_status(known.progress, status)
    change = {"status": status, "reason": reason, "progress": progress, "updated_at": at, "finished_at": at}
    save_migration(c, known, known.model_copy(update=change), at)
    note_closed(c, known.id, at)
    free(c, known.id, at)


def note_closed(c: Connection, migration_id: str, at: str) -> None:
    """Since when nothing of it is open."""
    row = c.execute(select(migrations).where(migrations.c.id == migration_id)).first()
    if row is None:
        return
    is_closed = rows.migration(row).is_closed(on_destination=row.destination_bytes > 0)
    since = (row.closed_at or at) if is_closed else None
    if since != row.closed_at:
        c.execute(update(migrations).where(migrations.c.id == migration_id).values(closed_at=since))


def explain(c: Connection, migration_id: str, reason: str, at: str) -> None:
    """See ports.fleet.Fleet.explain."""
    known = known_migration(c, migration_id)
    if known is not None and not known.accepted and not known.status.final:
        now = known.model_copy(update={"reason": reason, "updated_at": at})
        save_migration(c, known, now, at)


def page(c: Connection, page: Page) -> list[MigrationRecord]:
    """See ports.fleet.Fleet.migrations."""
    query = select(migrations).order_by(migrations.c.number.desc()).limit(page.limit)
    if page.before is not None:
        query = query.where(migrations.c.number < page.before)
    if page.vm is not None:
        query = query.where(or_(migrations.c.vm_uuid == page.vm.lower(), migrations.c.vm_name == page.vm))
    if page.statuses:
        query = query.where(migrations.c.status.in_([s.value for s in page.statuses]))
    if page.id_prefix:
        query = query.where(migrations.c.id.startswith(page.id_prefix.lower(), autoescape=True))
    if page.holding:
        query = query.where(migrations.c.id.in_(select(vms.c.migration_id).where(vms.c.migration_id.is_not(None))))
    if page.asked_for:
        query = query.where(migrations.c.reported_by == "")
    return [rows.migration(r) for r in c.execute(query)]


def save_progress(c: Connection, progress: Mapping[str, Progress]) -> None:
    """See ports.fleet.Fleet.save_progress."""
    same = migrations.c.id == bindparam("b_id"), migrations.c.status == bindparam("b_status")
    values = [
        {"b_id": id, "b_status": one.status.value, "b_progress": one.model_dump(mode="json")}
        for id, one in sorted(progress.items())
    ]
    c.execute(update(migrations).where(*same).values(progress=bindparam("b_progress")), values)
