"""What each transaction about the hosts of a rolling operation does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from sterna.adapters.sql import step_statements as on_steps
from sterna.adapters.sql.host_statements import closed_hosts, open_after
from sterna.adapters.sql.operation_statements import held, required, save
from sterna.adapters.sql.rule_statements import check_closing
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.stages import Change, Stage, named
from sterna.ports.operations import OperationRecord, Seen

_TOO_EARLY = {
    Stage.WAITING: ("its turn has not come", "wait until it is empty: `sterna operation show` says how far it is"),
    Stage.DRAINING: ("it is not empty yet", "wait until it is empty: `sterna operation show` says how far it is"),
    Stage.EMPTY: ("nothing has begun there", "resume the operation if it is paused"),
    Stage.SKIPPED: ("it was skipped", "`sterna operation resume` tries it again"),
}


def advance(
    c: Connection,
    known: OperationRecord,
    changes: Sequence[Change],
    pause: str,
    seen: Seen | None = None,
    at: str = "",
) -> bool:
    """See ports.operations.OperationRecords.advance_hosts."""
    now = held(c, known.id, known.epoch)
    if now is None or not all(_is_true(c, known.id, change) for change in changes):
        return False
    begins = [change for change in changes if on_steps.begins(change.was, change.now)]
    if (begins or pause) and now.status is not known.status:
        return False
    if seen is not None and not _may_begin(c, now, begins, seen):
        return False
    for change in changes:
        on_steps.save(c, known.id, change.now)
    closing = [one.now.host for one in begins if one.now.stage is Stage.DRAINING]
    closed = {*now.closed, *on_steps.close(c, now, closing)} if closing else {*now.closed}
    open_after(c, known.id, [one.now.host for one in changes if one.opens])
    update: dict[str, object] = {"closed": tuple(sorted(closed))}
    if pause:
        update |= {"status": OperationStatus.PAUSED, "paused_because": pause, "changed_by": ""}
    new = now.model_copy(update=update)
    if new != now:
        save(c, now, new, at or now.standing.at or now.created_at)
    return True


def _may_begin(c: Connection, known: OperationRecord, begins: Sequence[Change], seen: Seen) -> bool:
    """False where others are closed than were seen. Raises Refused by the rules about hosts."""
    closing = [change.now.host for change in begins if not change.was.stage.closed]
    if closing and not closed_hosts(c) <= seen.closed:
        return False
    if known.ignores_host_rules:
        return True
    if closing:
        check_closing(c, closing, seen.usable)
    handed_over = [change.now.host for change in begins if change.now.stage is Stage.BETWEEN]
    if handed_over:
        emptied = named(on_steps.steps(c, known.id), Stage.DRAINING, Stage.EMPTY)
        check_closing(c, handed_over, seen.usable, but=emptied)
    return True


def _is_true(c: Connection, operation: str, change: Change) -> bool:
    if on_steps.step(c, operation, change.was.host) != change.was:
        return False
    emptied = change.now.stage is not change.was.stage and change.now.stage in (Stage.EMPTY, Stage.BETWEEN)
    return not emptied or on_steps.is_free(c, change.was.host)


def done(c: Connection, id: str, host: str, by: str, at: str) -> OperationRecord:
    """See ports.operations.OperationRecords.host_done."""
    known = required(c, id)
    step = on_steps.step(c, id, host)
    if step is None:
        fix = f"`sterna operation show {id}` lists its hosts"
        raise NotFound(f"operation {id} is no rolling operation on {host}", fix=fix)
    if step.stage in (Stage.BACK, Stage.DONE) or step.done_at:
        return known
    if step.stage is not Stage.BETWEEN:
        why, fix = _TOO_EARLY[step.stage]
        raise Conflict(f"{host} cannot be done: {why}", fix=fix)
    on_steps.save(c, id, step.model_copy(update={"done_at": at, "done_by": by}))
    return known
