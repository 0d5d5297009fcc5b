"""The queue: everything that shall run and does not yet, each with what it waits for.

Single migrations come first: operations wait for them. What waits of an operation is what its controller has
written down at its last look, two seconds ago as a rule. Where that is long ago, the sentence says so.
"""

from __future__ import annotations

from datetime import datetime

from sterna.controller.records.under_way import under_way
from sterna.domain.fleet.admission import Wait
from sterna.domain.fleet.attempts import AttemptState
from sterna.domain.model import Value
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord
from sterna.ports.operations import OperationRecord

STALE_S = 30.0
"""Since an operation's controller has last looked: it stores that every ten seconds."""
_NO_NEWS = {"", "accepted", "asking the source"}
"""Reasons that say no more than the status."""

Place = tuple[int, int, str]
"""In the queue: 0 for single migrations and 1 for operations, the number, and what distinguishes the migration."""


class Waiting(Value):
    """A migration that has not begun."""

    place: Place
    wait: Wait
    operation: str = ""
    """Of an operation: its id."""
    migration: str = ""
    """Its id, where it has one already."""
    seen_at: str = ""
    """ISO 8601 UTC: when the reason was written down."""


class Unplanned(Value):
    """An operation of which nothing is known yet."""

    operation: str
    reason: str


class Queue(Value):
    """In the order in which it will probably run."""

    waits: tuple[Waiting, ...] = ()
    unplanned: tuple[Unplanned, ...] = ()


class WaitingList:
    """Reads only."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock

    async def all(self, *, host: str = "", operation: str = "") -> Queue:
        """`host`: only what leaves it or goes there. `operation`: only of this one. Raises Unreachable."""
        unfinished, now = await self._fleet.unfinished_operations(), self._clock.now()
        active = await self._fleet.active_attempts()
        of = {one.migration: one.operation for one in active}
        numbers = {one.id: one.number for one in unfinished}
        waits = [_queued(record, of.get(record.id, ""), numbers) for record in await self._queued()]
        begun = {(one.operation, one.vm, one.source) for one in active if one.state is AttemptState.STARTED}
        begun |= {(one.operation, one.wait.vm, one.wait.source) for one in waits}
        for one in unfinished:
            left = [wait for wait in one.standing.waits if (one.id, wait.vm, wait.source) not in begun]
            waits += [_of_operation(one, wait, now) for wait in left]
        wanted = [
            one
            for one in waits
            if (not host or host in (one.wait.source, one.wait.target))
            and (not operation or one.operation == operation)
        ]
        new = [one for one in unfinished if one.status.starts and not one.standing.at]
        unplanned = [Unplanned(operation=one.id, reason="no controller has planned it yet") for one in new]
        return Queue(
            waits=tuple(sorted(wanted, key=lambda one: one.place[:2])),
            unplanned=tuple(one for one in unplanned if not operation or one.operation == operation),
        )

    async def _queued(self) -> list[MigrationRecord]:
        """Oldest first."""
        return (await under_way(self._fleet, (Status.QUEUED,)))[::-1]


def behind(queue: Queue, place: Place) -> Queue:
    """What comes after that place. Where it has left the queue: from the operation's first on."""
    for number, one in enumerate(queue.waits):
        if one.place == place:
            return queue.model_copy(update={"waits": queue.waits[number + 1 :]})
    return queue.model_copy(update={"waits": tuple(one for one in queue.waits if one.place[:2] >= place[:2])})


def _queued(record: MigrationRecord, operation: str, numbers: dict[str, int]) -> Waiting:
    migration = record.migration
    to_come = "has accepted it, but has not started" if record.accepted else "is being asked to start"
    reason = f"{migration.source} {to_come}" if record.reason in _NO_NEWS else record.reason
    place = (1, numbers[operation]) if operation in numbers else (0, record.number)
    return Waiting(
        place=(*place, f"{migration.vm_uuid}/{migration.source}"),
        wait=Wait(
            vm=migration.vm_uuid,
            name=migration.vm_name,
            source=migration.source,
            target=migration.destination,
            reason=reason,
        ),
        operation=operation,
        migration=record.id,
        seen_at=record.updated_at,
    )


def _of_operation(operation: OperationRecord, wait: Wait, now: datetime) -> Waiting:
    at = operation.standing.at
    if (now - datetime.fromisoformat(at)).total_seconds() > STALE_S:
        why = f"no controller has checked operation {operation.id[:8]} since {at[:19]} UTC"
        wait = wait.model_copy(update={"reason": f"{why}; before that: {wait.reason}"})
    place = (1, operation.number, f"{wait.vm}/{wait.source}")  # one that is parked moves twice
    return Waiting(place=place, wait=wait, operation=operation.id, seen_at=at)
