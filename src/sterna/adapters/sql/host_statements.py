"""What each transaction about hosts does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, insert, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql.fleet_schema import hosts
from sterna.adapters.sql.notes import note_host
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.hosts import HostFacts
from sterna.domain.notifications.events import EventType
from sterna.ports.fleet import HostRecord

MOST_NAMES = 5_000
"""In one statement; SQLite takes 32,766."""
KnownHosts = dict[str, tuple[tuple[Any, ...], HostRecord]]
"""Each host with what its row had in its columns when it was read; its document only changes with `revision`."""


def all_hosts(c: Connection, known: KnownHosts) -> KnownHosts:
    """See ports.fleet.Fleet.hosts. Of a thousand hosts few have changed since they were read last: only the
    documents of these are read."""
    columns = ("name", "revision", *rows.HOST_COLUMNS)
    query = select(*(hosts.c[name] for name in columns)).order_by(hosts.c.name)
    keys = {r[0]: tuple(r) for r in c.execute(query)}
    changed = [name for name, key in keys.items() if name not in known or known[name][0] != key]
    new: dict[str, HostRecord] = {}
    for begin in range(0, len(changed), MOST_NAMES):
        some = select(hosts).where(hosts.c.name.in_(changed[begin : begin + MOST_NAMES]))
        new |= {r.name: rows.host(r) for r in c.execute(some)}
    found = {name: (key, new[name] if name in new else known[name][1]) for name, key in keys.items()}
    return dict(sorted(found.items()))


def known_host(c: Connection, name: str) -> HostRecord | None:
    """None where there is none of that name."""
    found = c.execute(select(hosts).where(hosts.c.name == name)).first()
    return rows.host(found) if found else None


def required_host(c: Connection, name: str) -> HostRecord:
    """See ports.fleet.Fleet.host."""
    found = known_host(c, name)
    if found is None:
        raise NotFound(f"there is no host {name}", fix="`sterna hosts` lists them")
    return found


def save_host(c: Connection, facts: HostFacts, boot: str, at: str) -> HostRecord:
    """See ports.fleet.Fleet.save_host."""
    old = known_host(c, facts.name)
    if old is None:
        new = HostRecord(facts=facts, boot=boot, seen_at=at)
        c.execute(insert(hosts).values(**rows.host_values(new)))
        return new
    if old.facts.host_uuid != facts.host_uuid:
        raise Conflict(
            f"the name {facts.name} belongs to host {old.facts.host_uuid}; host {facts.host_uuid} uses it too",
            fix="give one of them another name in its agent's settings; if it is the same host with another UUID: "
            f"`sterna host pin {facts.name} {facts.host_uuid}`",
        )
    back = old.back_at or at if old.dead_at else ""
    new = old.model_copy(update={"facts": facts, "boot": boot, "seen_at": at, "back_at": back})
    c.execute(update(hosts).where(hosts.c.name == facts.name).values(_document(new)))
    return new


def pin(c: Connection, name: str, host_uuid: str) -> HostRecord:
    """See ports.fleet.Fleet.pin_host."""
    old = required_host(c, name)
    having = select(hosts.c.name).where(hosts.c.host_uuid == host_uuid, hosts.c.name != name)
    if (other := c.execute(having.limit(1)).scalar()) is not None:
        fix = f"give {name} a UUID of its own: `uuidgen`, then `host_uuid` in its libvirtd.conf"
        raise Conflict(f"{host_uuid} is the UUID of {other}", fix=fix)
    new = old.model_copy(update={"facts": old.facts.model_copy(update={"host_uuid": host_uuid})})
    values = {"host_uuid": host_uuid} | _document(new)
    c.execute(update(hosts).where(hosts.c.name == name).values(values))
    return new


def _document(record: HostRecord) -> dict[str, Any]:
    return {"document": rows.host_values(record)["document"], "revision": hosts.c.revision + 1}


def set_maintenance(c: Connection, name: str, on: bool, reason: str) -> HostRecord:
    """See ports.fleet.Fleet.set_maintenance."""
    return _set_maintenance(c, required_host(c, name), on, reason)


def _set_maintenance(c: Connection, old: HostRecord, on: bool, reason: str, by: str = "") -> HostRecord:
    change = {"maintenance": on, "maintenance_reason": reason if on else "", "closed_by": by}
    new = old.model_copy(update=change)
    values = {"maintenance": on} | _document(new)
    c.execute(update(hosts).where(hosts.c.name == old.name).values(values))
    return new


def close_for(c: Connection, operation: str, names: Iterable[str], reason: str) -> tuple[str, ...]:
    """Close these hosts; those that were open, or that an operation had closed. Raises NotFound."""
    known = [required_host(c, name) for name in names]
    taken = [host for host in known if not host.maintenance or host.closed_by]
    for host in taken:
        _set_maintenance(c, host, True, reason, operation)
    return tuple(host.name for host in taken)


def open_after(c: Connection, operation: str, names: Iterable[str]) -> None:
    """Open those of them that are still closed by this operation."""
    for host in (required_host(c, name) for name in names):
        if host.closed_by == operation:
            _set_maintenance(c, host, False, "")


def closed_hosts(c: Connection) -> frozenset[str]:
    """Those in maintenance."""
    return frozenset(c.execute(select(hosts.c.name).where(hosts.c.maintenance)).scalars())


def set_dead(c: Connection, name: str, at: str) -> HostRecord:
    """See ports.fleet.Fleet.set_dead."""
    was = required_host(c, name)
    new = was.model_copy(update={"dead_at": at, "back_at": ""})
    c.execute(update(hosts).where(hosts.c.name == name).values(_document(new)))
    if at and not was.dead_at:
        note_host(c, name, EventType.HOST_DECLARED_DEAD, at)
    return new
