"""What each transaction about operations does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from sterna.adapters.sql import fleet_rows as rows
from sterna.adapters.sql import host_statements
from sterna.adapters.sql import step_statements as on_steps
from sterna.adapters.sql.fleet_schema import attempts, migrations, operations, vms
from sterna.adapters.sql.host_statements import open_after, required_host
from sterna.adapters.sql.notes import note_operation, note_standing
from sterna.adapters.sql.rule_statements import all_rules, check_closing
from sterna.adapters.sql.step_statements import ACTIVE
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, moved_away
from sterna.domain.fleet.course import UNFINISHED, OperationKind, OperationStatus, Order, obeying
from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.rules import orders
from sterna.domain.journal import Migration
from sterna.domain.status import Status
from sterna.kit.digests import digest_of
from sterna.ports.fleet import HostRecord, MigrationRecord
from sterna.ports.operations import Decision, OperationPage, OperationRecord, Standing, Tried

COLUMNS = ("id", "status", "holder", "epoch", "beat")
_NOT_MOVED = frozenset({AttemptState.REFUSED, AttemptState.CANCELLED, AttemptState.FAILED})


def _record(row: Row[Any]) -> OperationRecord:
    columns = {name: getattr(row, name) for name in (*COLUMNS, "number", "standing")}
    return OperationRecord.model_validate(row.document | columns)


def _values(record: OperationRecord) -> dict[str, Any]:
    document = record.model_dump(mode="json", exclude={*COLUMNS, "number", "standing"})
    columns = record.model_dump(mode="json", include={*COLUMNS, "standing"})
    return {"document": document} | columns


def _attempt(row: Row[Any]) -> Attempt:
    columns = {"migration": row.migration, "operation": row.operation, "number": row.number, "state": row.state}
    return Attempt.model_validate(row.document | columns)


def _attempt_values(attempt: Attempt) -> dict[str, Any]:
    columns = attempt.model_dump(mode="json", include={"migration", "operation", "number", "state"})
    return columns | {"document": attempt.model_dump(mode="json", exclude=set(columns))}


# ---------------------------------------------------------------- operations


def _known(c: Connection, id: str) -> OperationRecord | None:
    found = c.execute(select(operations).where(operations.c.id == id)).first()
    return _record(found) if found else None


def required(c: Connection, id: str) -> OperationRecord:
    """See ports.operations.OperationRecords.operation."""
    found = _known(c, id)
    if found is None:
        raise NotFound(f"there is no operation {id}", fix="`sterna operations` lists them")
    return found


def add(c: Connection, wanted: OperationRecord, up: Collection[str] | None = None) -> tuple[OperationRecord, bool]:
    """See ports.operations.OperationRecords.add_operation."""
    known = _known(c, wanted.id)
    if known is not None:
        if not known.asks_as(wanted):
            raise Conflict(f"the id {wanted.id} belongs to another request", fix="choose a new id")
        return known, True
    for name in wanted.hosts:
        required_host(c, name)
    _refuse_busy(c, wanted)
    new = wanted
    if wanted.kind is OperationKind.DRAIN:  # a rolling operation plans its waves by the rules
        if up is not None:
            check_closing(c, wanted.hosts, up)
        new = wanted.model_copy(update={"closed": on_steps.close(c, wanted, wanted.hosts)})
    if wanted.kind is OperationKind.ROLLING:
        on_steps.add(c, wanted.id, wanted.hosts)
    key = c.execute(insert(operations).values(**_values(new))).inserted_primary_key
    note_operation(c, None, new, new.created_at)
    return new.model_copy(update={"number": int(key[0]) if key else 0}), False


def _refuse_busy(c: Connection, wanted: OperationRecord) -> None:
    """A rebalance conflicts with other rebalances only."""
    balances = wanted.kind is OperationKind.REBALANCE
    for other in unfinished(c):
        if other.id == wanted.id or balances is not (other.kind is OperationKind.REBALANCE):
            continue
        shared = sorted(set(other.hosts) & set(wanted.hosts))
        if shared or (balances and not (other.hosts and wanted.hosts)):
            raise Conflict(
                f"operation {other.id} works on {', '.join(shared) or 'all hosts'}: it is {other.status}",
                fix=f"wait for it, or `sterna operation stop {other.id}`",
            )


def page(c: Connection, page: OperationPage) -> list[OperationRecord]:
    """See ports.operations.OperationRecords.operations."""
    query = select(operations).order_by(operations.c.number.desc()).limit(page.limit)
    if page.before is not None:
        query = query.where(operations.c.number < page.before)
    if page.statuses:
        query = query.where(operations.c.status.in_([status.value for status in page.statuses]))
    if page.id_prefix:
        query = query.where(operations.c.id.startswith(page.id_prefix.lower(), autoescape=True))
    return [_record(row) for row in c.execute(query)]


def unfinished(c: Connection) -> list[OperationRecord]:
    """See ports.operations.OperationRecords.unfinished_operations."""
    going_on = operations.c.status.in_(sorted(status.value for status in UNFINISHED))
    return [_record(row) for row in c.execute(select(operations).where(going_on).order_by(operations.c.number))]


def order(
    c: Connection, id: str, order: Order, by: str, at: str, up: Collection[str] | None = None
) -> OperationRecord:
    """See ports.operations.OperationRecords.order_operation."""
    known = required(c, id)
    status = obeying(known.status, order, left=bool(known.standing.left), undo=known.undo)
    if status is known.status:
        return known
    change: dict[str, Any] = {"status": status, "changed_by": by, "ended_at": at if status.final else ""}
    if order in (Order.UNDO, Order.RESUME):
        _refuse_busy(c, known)
        if order is Order.RESUME and known.kind is OperationKind.DRAIN and up is not None:
            opened = [name for name in known.hosts if not required_host(c, name).maintenance]
            if not known.ignores_host_rules:
                check_closing(c, opened, up)
        change |= {"undo": order is Order.UNDO, "counts_from": _next_number(c, id)}
    change |= {"paused_because": "", "closed": _closed_after(c, known, order, at)}
    new = known.model_copy(update=change)
    save(c, known, new, at)
    return new


def _closed_after(c: Connection, known: OperationRecord, order: Order, at: str) -> tuple[str, ...]:
    """Open its hosts, or close them again, as is ordered; those that it has closed so far."""
    rolling = known.kind is OperationKind.ROLLING
    if order is Order.UNDO:
        on_steps.undo(c, known) if rolling else open_after(c, known.id, known.closed)
    if order is not Order.RESUME or not known.kind.empties:
        return known.closed
    if rolling:
        return on_steps.resume(c, known, at)
    return tuple(sorted({*known.closed, *on_steps.close(c, known, known.hosts)}))


def set_maintenance(c: Connection, name: str, on: bool, reason: str) -> HostRecord:
    """See ports.fleet.Fleet.set_maintenance."""
    if not on and required_host(c, name).maintenance:
        for operation in unfinished(c):
            if name not in operation.hosts or not operation.kind.empties:
                continue
            if not operation.status.keeps_closed and on_steps.is_asked_for(c, operation, name):
                raise Conflict(
                    f"what operation {operation.id} has asked for {name} may still run: it is {operation.status}",
                    fix=f"wait for its end; of an undo: `sterna operation done {operation.id} {name}`",
                )
            if operation.status.keeps_closed:
                if on_steps.is_open_to_people(c, operation, name):
                    continue
                raise Conflict(
                    f"operation {operation.id} is emptying {name}: it is {operation.status}",
                    fix=f"stop it first: `sterna operation stop {operation.id}`; `undo` opens the host as well",
                )
    return host_statements.set_maintenance(c, name, on, reason)


def save(c: Connection, was: OperationRecord, now: OperationRecord, at: str) -> None:
    """Store one that was known as `was`, and what is to be reported of the change."""
    c.execute(update(operations).where(operations.c.id == now.id).values(**_values(now)))
    note_operation(c, was, now, at)


# ---------------------------------------------------------------- the lease


def take(c: Connection, known: OperationRecord, holder: str) -> OperationRecord | None:
    """See ports.operations.OperationRecords.take_operation."""
    same = [getattr(operations.c, name) == getattr(known, name) for name in ("id", "holder", "epoch", "beat")]
    new = {"holder": holder, "epoch": known.epoch + 1, "beat": 0}
    taken = c.execute(update(operations).where(*same).values(**new)).rowcount == 1
    return required(c, known.id) if taken else None


def keep(c: Connection, id: str, epoch: int) -> OperationRecord | None:
    """See ports.operations.OperationRecords.keep_operation."""
    mine = operations.c.id == id, operations.c.epoch == epoch, operations.c.holder != ""
    moved = c.execute(update(operations).where(*mine).values(beat=operations.c.beat + 1)).rowcount == 1
    return required(c, id) if moved else None


def release(c: Connection, id: str, epoch: int) -> None:
    """See ports.operations.OperationRecords.release_operation."""
    c.execute(update(operations).where(operations.c.id == id, operations.c.epoch == epoch).values(holder=""))


def held(c: Connection, id: str, epoch: int) -> OperationRecord | None:
    """The operation; None where it is not held under this epoch any more."""
    known = _known(c, id)
    return known if known is not None and known.epoch == epoch and known.holder else None


def stand(c: Connection, id: str, epoch: int, standing: Standing) -> None:
    """See ports.operations.OperationRecords.stand."""
    mine = operations.c.id == id, operations.c.epoch == epoch
    known = _known(c, id)
    if known is None or known.epoch != epoch:
        return
    standing = note_standing(c, known, standing)
    c.execute(update(operations).where(*mine).values(standing=standing.model_dump(mode="json")))


def conclude(
    c: Connection,
    known: OperationRecord,
    status: OperationStatus,
    standing: Standing,
    at: str,
    empty: Collection[str] = (),
) -> bool:
    """See ports.operations.OperationRecords.conclude."""
    if any(on_steps.says_it_runs_vms(c, host) for host in empty):
        return False
    now = held(c, known.id, known.epoch)
    goes_on = select(attempts.c.migration).where(attempts.c.operation == known.id, attempts.c.state.in_(ACTIVE))
    if now is None or now.status is not known.status or c.execute(goes_on).first() is not None:
        return False
    ended = {"status": status, "standing": standing, "ended_at": at, "holder": ""}
    save(c, now, now.model_copy(update=ended), at)
    return True


# ---------------------------------------------------------------- attempts


def _next_number(c: Connection, operation: str) -> int:
    """Greater than those of all its attempts."""
    last = c.execute(select(func.max(attempts.c.number)).where(attempts.c.operation == operation)).scalar()
    return 0 if last is None else int(last) + 1


def tried(c: Connection, operation: str) -> list[Tried]:
    """See ports.operations.OperationRecords.attempts."""
    query = select(attempts).where(attempts.c.operation == operation).order_by(attempts.c.number)
    found = [_attempt(row) for row in c.execute(query)]
    records = _migrations(c, [one.migration for one in found if not one.state.ended])
    return [_tried(one, records.get(one.migration)) for one in found]


def _tried(attempt: Attempt, record: MigrationRecord | None) -> Tried:
    if record is None:
        return Tried(attempt=attempt)
    return Tried(attempt=attempt, status=record.status, accepted=record.accepted, reason=record.reason)


def _migrations(c: Connection, ids: Collection[str]) -> dict[str, MigrationRecord]:
    found = c.execute(select(migrations).where(migrations.c.id.in_(ids))) if ids else ()
    return {row.id: rows.migration(row) for row in found}


def away(c: Connection, hosts: Collection[str]) -> tuple[Return, ...]:
    """See ports.operations.OperationRecords.moved_away."""
    left = attempts.alias("left")
    of_hosts = left.c.document["source"].as_string().in_(sorted(hosts))
    vms_of_hosts = select(left.c.document["vm"].as_string()).where(left.c.state == AttemptState.ARRIVED, of_hosts)
    arrived = attempts.c.state == AttemptState.ARRIVED, attempts.c.document["vm"].as_string().in_(vms_of_hosts)
    return moved_away((_attempt(row) for row in c.execute(select(attempts).where(*arrived))), hosts)


def active(c: Connection) -> list[Attempt]:
    """See ports.operations.OperationRecords.active_attempts."""
    return [_attempt(row) for row in c.execute(select(attempts).where(attempts.c.state.in_(ACTIVE)))]


def decide(c: Connection, decision: Decision) -> tuple[Attempt, ...]:
    """See ports.operations.OperationRecords.decide."""
    now = held(c, decision.operation, decision.epoch)
    if now is None or now.status is not decision.status:
        return ()
    current = _at_home(c, decision.attempts)
    if not current or _unseen(c, decision, current) or all_rules(c) != list(decision.rules):
        return ()
    for attempt in current:
        c.execute(insert(attempts).values(**_attempt_values(attempt)))
    return current


def _at_home(c: Connection, decided: Collection[Attempt]) -> tuple[Attempt, ...]:
    """Those of them whose VM is where the attempt begins, and is in no migration."""
    wanted = select(vms.c.uuid, vms.c.host).where(vms.c.uuid.in_([attempt.vm for attempt in decided]))
    free = {row.uuid: row.host for row in c.execute(wanted.where(vms.c.migration_id.is_(None)))}
    return tuple(attempt for attempt in decided if free.get(attempt.vm) == attempt.source)


def _unseen(c: Connection, decision: Decision, current: Iterable[Attempt]) -> bool:
    """Is there a migration that it does not know: from or to a host of these attempts, or of a VM that a rule
    names? Such a VM may have gone to another host of a failure domain."""
    hosts = {host for attempt in current for host in (attempt.source, attempt.target)}
    held = c.execute(select(vms.c.migration_id).where(vms.c.migration_id.is_not(None)))
    new = {str(row.migration_id) for row in held} - decision.seen
    records = _migrations(c, new).values()
    decided = [one for one in active(c) if one.migration not in decision.seen]
    moving = [(one.migration.source, one.migration.destination) for one in records]
    moving += [(one.source, one.target) for one in decided]
    vms_moving = {(one.migration.vm_uuid, one.migration.vm_name) for one in records}
    vms_moving |= {(one.vm, one.name) for one in decided}
    named = any(rule.names(*vm) for rule in decision.rules for vm in vms_moving)
    return named or any(hosts & {source, target} for source, target in moving)


def settle(
    c: Connection, attempt: Attempt, epoch: int, state: AttemptState, *, reason: str, blame: Blame, at: str
) -> Attempt | None:
    """See ports.operations.OperationRecords.settle_attempt."""
    row = c.execute(select(attempts).where(attempts.c.migration == attempt.migration)).first()
    if row is None or held(c, attempt.operation, epoch) is None:
        return None
    known = _attempt(row)
    if known.state.ended:
        return known
    record = _migrations(c, [attempt.migration]).get(attempt.migration)
    if record is not None and state in _NOT_MOVED and record.status not in (Status.FAILED, Status.CANCELLED):
        return known
    change = {"state": state, "reason": reason, "blame": blame, "ended_at": at if state.ended else ""}
    new = known.model_copy(update=change)
    c.execute(update(attempts).where(attempts.c.migration == attempt.migration).values(**_attempt_values(new)))
    return new


def check_not_over(c: Connection, migration: Migration) -> None:
    """Nothing, unless it is an attempt of an operation. Raises Conflict where that has ended, or was decided for a
    VM on another host, or by other placement rules: whoever asks has slept over it."""
    row = c.execute(select(attempts).where(attempts.c.migration == migration.id)).first()
    if row is None:
        return
    attempt = _attempt(row)
    if attempt.state.ended:
        raise Conflict(f"operation {attempt.operation} has given up this migration of {attempt.name}")
    if attempt.rules and attempt.rules != digest_of(orders(all_rules(c))):
        raise Conflict(
            f"the placement rules have changed since operation {attempt.operation} decided on this migration of "
            f"{attempt.name}"
        )
    if attempt.source != migration.source:
        raise Conflict(
            f"operation {attempt.operation} wants {attempt.name} moved from {attempt.source}, and it is on "
            f"{migration.source} now"
        )
