"""The types of events, and which change is which event (docs/reference/notifications.md)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.status import OWNER, Status

PAYLOAD_VERSION = 1
"""Grows when a field is removed or changes its meaning. New fields and new types do not change it."""


class EventType(StrEnum):
    """What has happened."""

    MIGRATION_ACCEPTED = "migration.accepted"
    """Its source has accepted it."""
    MIGRATION_SWITCHED_OVER = "migration.switched_over"
    """The guest runs on the destination."""
    MIGRATION_INTERRUPTED = "migration.interrupted"
    """The stream broke in post-copy: the guest may be paused until it is connected again."""
    MIGRATION_IN_DOUBT = "migration.in_doubt"
    """Both hosts were asked, and it is not known which one runs the guest."""
    MIGRATION_COMPLETED = "migration.completed"
    MIGRATION_FAILED = "migration.failed"
    """It was rolled back: the VM is on its source."""
    MIGRATION_CANCELLED = "migration.cancelled"
    """The same, at a user's request."""
    OPERATION_STARTED = "operation.started"
    OPERATION_WAITING = "operation.waiting"
    """Something has kept it from its end for half a minute."""
    OPERATION_PROMISE_CHANGED = "operation.promise_changed"
    """Its promised end has moved by more than a minute and more than a tenth of what is left, or is known now."""
    OPERATION_PAUSED = "operation.paused"
    """By a user, or by itself: then `paused_because` is why."""
    OPERATION_RESUMED = "operation.resumed"
    OPERATION_STOPPING = "operation.stopping"
    OPERATION_UNDOING = "operation.undoing"
    OPERATION_ENDED = "operation.ended"
    """`status` is how: `done`, `incomplete`, `stopped` or `undone`."""
    HOST_DOWN = "host.down"
    """No heartbeat of its agent has come for half a minute."""
    HOST_UP = "host.up"
    """Its agent sends heartbeats again after `host.down`."""
    HOST_DECLARED_DEAD = "host.declared_dead"
    """By an administrator."""
    TEST = "test"
    """Requested with `sterna notify test`. Sent whatever `events` says."""


CHOSEN = tuple(kind for kind in EventType if kind is not EventType.TEST)
"""What an endpoint may choose."""

_BY_STATUS = {
    Status.RECOVERING: EventType.MIGRATION_INTERRUPTED,
    Status.ERROR: EventType.MIGRATION_IN_DOUBT,
    Status.COMPLETED: EventType.MIGRATION_COMPLETED,
    Status.FAILED: EventType.MIGRATION_FAILED,
    Status.CANCELLED: EventType.MIGRATION_CANCELLED,
}
_BY_OPERATION = {
    OperationStatus.RUNNING: EventType.OPERATION_RESUMED,
    OperationStatus.PAUSED: EventType.OPERATION_PAUSED,
    OperationStatus.STOPPING: EventType.OPERATION_STOPPING,
    OperationStatus.UNDOING: EventType.OPERATION_UNDOING,
}


def of_migration(was: Status, now: Status, *, newly_accepted: bool) -> Iterator[EventType]:
    """The events of one change of a migration, in order."""
    if newly_accepted:
        yield EventType.MIGRATION_ACCEPTED
    if was is now:
        return
    if OWNER[now] == "destination" and OWNER[was] != "destination":
        yield EventType.MIGRATION_SWITCHED_OVER
    if now in _BY_STATUS:
        yield _BY_STATUS[now]


def of_operation(was: OperationStatus | None, now: OperationStatus) -> EventType | None:
    """The event of a change of an operation's status; `was` None: it is new."""
    if was is None:
        return EventType.OPERATION_STARTED
    if was is now:
        return None
    return EventType.OPERATION_ENDED if now.final else _BY_OPERATION[now]


def chosen(patterns: tuple[str, ...]) -> tuple[EventType, ...]:
    """The types that these name: `migration.failed`, or `operation.*`. None of them: all.

    Raises ValueError for one that names no type."""
    found: set[EventType] = set()
    for pattern in patterns:
        prefix = pattern.removesuffix("*")
        whole = pattern == prefix
        named = {one for one in CHOSEN if one == pattern or (not whole and one.startswith(prefix))}
        if not named or not (whole or prefix.endswith(".")):
            known = ", ".join(CHOSEN)
            raise ValueError(f"{pattern!r} is no type of event: {known}; or a group of them, such as 'migration.*'")
        found |= named
    return tuple(one for one in CHOSEN if not patterns or one in found)
