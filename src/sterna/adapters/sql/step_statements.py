"""The hosts of rolling operations: their rows, and which of them are closed. On a connection, in a transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, or_, select, update

from sterna.adapters.sql import host_statements
from sterna.adapters.sql.fleet_schema import attempts, migrations, operation_hosts, operations, sightings, vms
from sterna.domain.errors import Conflict
from sterna.domain.fleet.attempts import AttemptState
from sterna.domain.fleet.course import OperationKind
from sterna.domain.fleet.stages import HostStep, Stage, resumed, undone
from sterna.domain.model import GuestState
from sterna.ports.operations import OperationRecord

ACTIVE = [state.value for state in AttemptState if not state.ended]
MOST_ROWS = 500
"""In one statement."""


def steps(c: Connection, operation: str) -> list[HostStep]:
    """See ports.operations.OperationRecords.host_steps."""
    rows = operation_hosts.c
    query = select(rows.document).where(rows.operation == operation).order_by(rows.host)
    return [HostStep.model_validate(row.document) for row in c.execute(query)]


def step(c: Connection, operation: str, host: str) -> HostStep | None:
    """None where the operation has no such host."""
    rows = operation_hosts.c
    query = select(rows.document).where(rows.operation == operation, rows.host == host)
    found = c.execute(query).first()
    return HostStep.model_validate(found.document) if found else None


def add(c: Connection, operation: str, hosts: Iterable[str]) -> None:
    """All of them wait."""
    values = [
        {"operation": operation, "host": host, "document": HostStep(host=host).model_dump(mode="json")}
        for host in hosts
    ]
    for begin in range(0, len(values), MOST_ROWS):
        c.execute(insert(operation_hosts), values[begin : begin + MOST_ROWS])


def save(c: Connection, operation: str, new: HostStep) -> None:
    """Store it."""
    rows = operation_hosts.c
    mine = rows.operation == operation, rows.host == new.host
    c.execute(update(operation_hosts).where(*mine).values(document=new.model_dump(mode="json")))


def remove(c: Connection, operation: str) -> None:
    """All of the operation."""
    c.execute(delete(operation_hosts).where(operation_hosts.c.operation == operation))


# ---------------------------------------------------------------- hosts that are closed


def close(c: Connection, operation: OperationRecord, names: Iterable[str]) -> tuple[str, ...]:
    """Close these hosts for it. Those that were open, or that an operation had closed; a rolling operation, which
    opens its hosts, leaves to drains what they keep closed. Raises NotFound."""
    names = tuple(names)
    if operation.kind is OperationKind.ROLLING:
        closers = {name: host_statements.required_host(c, name).closed_by for name in names}
        kept = _not_rolling(c, set(closers.values()) - {"", operation.id})
        names = tuple(name for name in names if closers[name] not in kept)
    why = f"operation {operation.id[:8]} of {operation.requested_by or 'nobody named'}"
    why += f": {operation.reason}" if operation.reason else ""
    return host_statements.close_for(c, operation.id, names, why)


def _not_rolling(c: Connection, ids: set[str]) -> set[str]:
    """Those of these operations that are none, or are not known any more."""
    found = c.execute(select(operations.c.id, operations.c.document).where(operations.c.id.in_(ids)))
    return ids - {row.id for row in found if row.document["kind"] == OperationKind.ROLLING}


def undo(c: Connection, operation: OperationRecord) -> None:
    """Open the hosts again that it has closed, but for those to which something may happen still, or has."""
    before = steps(c, operation.id)
    for one in before:
        if (new := undone(one)) != one:
            save(c, operation.id, new)
    still = {one.host for one in before if undone(one).keeps_closed}
    host_statements.open_after(c, operation.id, [name for name in operation.closed if name not in still])


def resume(c: Connection, operation: OperationRecord, at: str) -> tuple[str, ...]:
    """Its hosts that are still closed stay so, and the others wait for their turn; all that it has closed so far.
    Raises NotFound."""
    closed = []
    for one in steps(c, operation.id):
        is_closed = one.stage.closed and host_statements.required_host(c, one.host).maintenance
        new = resumed(one, at, was_opened=not is_closed)
        if new != one:
            save(c, operation.id, new)
        closed += [one.host] if is_closed else []
    return tuple(sorted({*operation.closed, *close(c, operation, closed)}))


def is_open_to_people(c: Connection, operation: OperationRecord, host: str) -> bool:
    """May a person open the host while the operation goes on?"""
    found = step(c, operation.id, host)
    return found is not None and not found.stage.closed


def says_it_runs_vms(c: Connection, host: str) -> bool:
    """By its own list, also VMs that another host claims as well: one of the two is wrong, or lies."""
    said = sightings.c.host == host, sightings.c.state == GuestState.RUNNING.value
    return c.execute(select(sightings.c.uuid).where(*said).limit(1)).first() is not None


def is_asked_for(c: Connection, operation: OperationRecord, host: str) -> bool:
    """May a webhook's call or a command be under way for the host?"""
    found = step(c, operation.id, host)
    between = found is not None and found.stage is Stage.BETWEEN and not found.accepted_at
    return between and operation.between.asks


def is_free(c: Connection, host: str) -> bool:
    """Is no VM there by the records and by its own list, and none on its way to it or away from it? What a host has
    said that was declared dead since does not count."""
    there = vms.c.host == host, vms.c.state != GuestState.ABSENT.value
    if c.execute(select(vms.c.uuid).where(*there).limit(1)).first() is not None:
        return False
    known = host_statements.known_host(c, host)
    is_dead = known is not None and known.dead_at and not known.back_at
    if not is_dead and says_it_runs_vms(c, host):
        return False
    ends = [migrations.c.document["migration"][end].as_string() == host for end in ("source", "destination")]
    held = select(migrations.c.id).join(vms, vms.c.migration_id == migrations.c.id).where(or_(*ends)).limit(1)
    if c.execute(held).first() is not None:
        return False
    decided = c.execute(select(attempts.c.document).where(attempts.c.state.in_(ACTIVE)))
    return not any(host in (row.document["source"], row.document["target"]) for row in decided)


def refuse_closed(c: Connection, host: str) -> None:
    """Raises Conflict where an operation has closed the host: whoever asks has looked before that."""
    found = host_statements.known_host(c, host)
    if found is not None and found.closed_by:
        raise Conflict(
            f"{host} is closed: {found.maintenance_reason}", fix="choose another host, or wait for the operation"
        )


def begins(was: HostStep, now: HostStep) -> bool:
    """Does something begin that an order of an operator would keep from beginning?"""
    return now.stage is not was.stage and now.stage in (Stage.DRAINING, Stage.BETWEEN)
