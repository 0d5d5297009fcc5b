"""A migration as Nova shows it: in the list of all, and below its server while it is under way."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from sterna.api.compute.call import Call
from sterna.api.compute.reading import moment
from sterna.controller.records.registry import Host
from sterna.domain.compute.statuses import MIGRATION
from sterna.ports.fleet import MigrationRecord

_HOSTS = ("source_compute", "source_node", "dest_compute", "dest_node", "dest_host")


def listed(call: Call, record: MigrationRecord, hosts: dict[str, Host], *, show_hosts: bool) -> dict[str, Any]:
    """One of `/os-migrations`."""
    view = _common(call, record, hosts, show_hosts=show_hosts) | {
        "instance_uuid": record.migration.vm_uuid,
        "old_instance_type_id": None,
        "new_instance_type_id": None,
    }
    if call.has(23):
        view["migration_type"] = "live-migration"
        if not record.status.final:
            view["links"] = call.links(f"servers/{record.migration.vm_uuid}/migrations/{record.number}")
    return view


def of_server(call: Call, record: MigrationRecord, hosts: dict[str, Host], *, show_hosts: bool) -> dict[str, Any]:
    """One of `/servers/ID/migrations`."""
    view = _common(call, record, hosts, show_hosts=show_hosts)
    return view | {"server_uuid": record.migration.vm_uuid} | _bytes(record)


def _common(call: Call, record: MigrationRecord, hosts: dict[str, Host], *, show_hosts: bool) -> dict[str, Any]:
    migration = record.migration
    view: dict[str, Any] = {
        "id": record.number,
        "status": MIGRATION[record.status],
        "created_at": moment(migration.created_at),
        "updated_at": moment(record.updated_at),
    }
    if call.has(59):
        view["uuid"] = record.id
    if call.has(80):
        who = migration.options.requester
        view |= {"user_id": who.user_id if who else None, "project_id": who.project_id if who else None}
    names = (migration.source, migration.source, migration.destination, migration.destination)
    values = (*names, _address(hosts.get(migration.destination)))
    return view | dict(zip(_HOSTS, values if show_hosts else [None] * len(_HOSTS), strict=True))


def _address(host: Host | None) -> str | None:
    """An IP address; Nova shows nothing else there."""
    try:
        return str(ip_address(host.facts.address)) if host is not None else None
    except ValueError:
        return None


def _bytes(record: MigrationRecord) -> dict[str, int | None]:
    """Null for what nobody has counted, and for disks where none is copied: Nova's own schema has no zero."""
    progress = record.progress
    disks = (progress.disk_bytes_total, progress.disk_bytes_processed, progress.disk_bytes_remaining)
    all_of = (progress.bytes_total, progress.bytes_processed, progress.bytes_remaining)
    view: dict[str, int | None] = {}
    for word, whole, disk in zip(("total", "processed", "remaining"), all_of, disks, strict=True):
        memory = None if whole is None else whole - (disk or 0)
        view |= {f"memory_{word}_bytes": memory or None, f"disk_{word}_bytes": disk or None}
    return view
