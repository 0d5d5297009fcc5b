"""Rows of the controller's tables as records, and back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from sterna.domain.hosts import VmSummary
from sterna.domain.journal import Entry
from sterna.domain.progress import Progress
from sterna.ports.fleet import EntryRecord, HostRecord, MigrationRecord, VmRecord

HOST_COLUMNS = ("maintenance", "cursor", "mark", "generation")


def host(row: Row[Any]) -> HostRecord:
    """A row of `hosts`."""
    return HostRecord.model_validate(row.document | {name: getattr(row, name) for name in HOST_COLUMNS})


def host_values(record: HostRecord) -> dict[str, Any]:
    """Values of a row of `hosts`."""
    columns = {name: getattr(record, name) for name in HOST_COLUMNS}
    document = record.model_dump(mode="json", exclude=set(HOST_COLUMNS))
    return {"name": record.name, "host_uuid": record.facts.host_uuid, "document": document} | columns


def vm(row: Row[Any]) -> VmRecord:
    """A row of `vms`."""
    return VmRecord.model_validate(row.document | {"migration_id": row.migration_id})


def vm_values(record: VmRecord) -> dict[str, Any]:
    """Values of a row of `vms`."""
    document = record.model_dump(mode="json", exclude={"migration_id"})
    columns = {name: getattr(record, name) for name in ("uuid", "name", "host", "migration_id")}
    return {"document": document, "state": record.state.value} | columns


def seen_vm(old: VmRecord | None, host: str, summary: VmSummary, at: str) -> VmRecord:
    """A VM as one host just listed it."""
    kept: dict[str, Any] = {} if old is None else {"migration_id": old.migration_id, "changed_at": old.changed_at}
    return VmRecord(**summary.model_dump(), **kept, host=host, observed_at=at)


def migration(row: Row[Any]) -> MigrationRecord:
    """A row of `migrations`."""
    record = MigrationRecord.model_validate(row.document | {"number": row.number})
    if row.progress is None:
        return record
    progress = Progress.model_validate(row.progress)
    return record.model_copy(update={"progress": progress}) if progress.status is record.status else record


def migration_values(record: MigrationRecord) -> dict[str, Any]:
    """Values of a row of `migrations`; its number is the database's to give."""
    migration = record.migration
    document = record.model_dump(mode="json", exclude={"number"})
    return {
        "id": migration.id,
        "vm_uuid": migration.vm_uuid,
        "vm_name": migration.vm_name,
        "status": record.status.value,
        "finished_at": record.finished_at,
        "reported_by": record.reported_by,
        "document": document,
        "progress": None,
    }


def entry(row: Row[Any]) -> EntryRecord:
    """A row of `entries`."""
    return EntryRecord(id=row.id, host=row.host, entry=Entry.model_validate(row.document))


def entry_values(host: str, generation: int, entry: Entry) -> dict[str, Any]:
    """Values of a row of `entries`."""
    document = entry.model_dump(mode="json")
    return {
        "host": host,
        "generation": generation,
        "seq": entry.seq,
        "migration_id": entry.migration_id,
        "document": document,
    }
