"""One look at one operation: what has ended is written down, a plan is made, and what may begin is begun."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID, uuid5

import structlog

from sterna.controller.operations.acting import Acting
from sterna.controller.operations.observing import BEFORE_PIVOT, Observer
from sterna.controller.operations.planning import Look, Planning
from sterna.domain.fleet.admission import ending
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, back
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.operations import Decision, OperationRecord, Standing, Tried

log = structlog.get_logger(__name__)

STAND_EVERY_MS = 10_000.0
"""How often the forecast of an operation is stored where nothing else of it has changed."""
PATIENCE_MS = 30_000.0
"""VMs that cannot be moved are looked at for so long before an operation ends without them: hosts may be silent for
a moment."""
_ENDED = {
    Status.COMPLETED: (AttemptState.ARRIVED, Blame.NOBODY),
    Status.FAILED: (AttemptState.FAILED, Blame.HOST),
    Status.CANCELLED: (AttemptState.CANCELLED, Blame.NOBODY),
}
_HOPES = "VMs that cannot be moved are looked at for half a minute"
_NOT_BEGUN = "it had not begun when the operation was stopped"


class Looks:
    """At the operations that this controller holds."""

    def __init__(self, fleet: Fleet, observer: Observer, acting: Acting, clock: Clock) -> None:
        self._fleet, self._acting, self._clock = fleet, acting, clock
        self._observer, self._planning = observer, Planning(observer, clock)
        self._stuck: dict[str, float] = {}
        """Since when nothing of an operation could be moved (monotonic ms)."""

    def forget(self, unfinished: Collection[str]) -> None:
        """All others have ended."""
        for id in self._stuck.keys() - set(unfinished):
            del self._stuck[id]
        self._planning.forget(unfinished)

    async def look_at(self, operation: OperationRecord) -> bool:
        """Has it ended? Raises Unreachable."""
        tried = [await self._followed(operation, one) for one in await self._fleet.attempts(operation.id)]
        attempts = [one.attempt for one in tried]
        active = any(not attempt.state.ended for attempt in attempts)
        if operation.status is OperationStatus.STOPPING:
            status, standing = ending(operation.status, active=active), self._stopping(operation, tried)
        else:
            look = await self._planning.look(operation, tried)
            standing = look.standing(tried, self._acting.trouble)
            status, why = await self._ending(operation, look, active=active)
            standing = standing.model_copy(update={"waits_for": why})
            for migration in look.aborts:
                self._acting.abort(migration)
            await self._decide(operation, look, len(attempts))
        if status is None:
            await self.stand(operation, standing)
            return False
        at = self._clock.now().isoformat()
        if not await self._fleet.conclude(operation, status, standing.model_copy(update={"at": at}), at):
            return False
        log.info("an operation has ended", operation=operation.id, status=status, left=len(standing.left))
        self._stuck.pop(operation.id, None)  # an operator may have it go on
        self._planning.again(operation.id)
        return True

    async def _followed(self, operation: OperationRecord, tried: Tried) -> Tried:
        """The attempt as it is now, written down; begun or aborted where that is due."""
        attempt, status = tried.attempt, tried.status
        if attempt.state.ended or self._acting.busy(attempt.migration):
            return tried
        unwanted = operation.status.aborts and not (operation.status is OperationStatus.UNDOING and back(attempt))
        if status is None and unwanted:
            return await self._settled(operation, tried, AttemptState.CANCELLED, Blame.NOBODY, _NOT_BEGUN)
        if status is None:
            if operation.status.starts:
                self._acting.begin(operation, attempt)
            return tried
        if status in _ENDED:
            state, blame = _ENDED[status]
            if status is Status.FAILED and not tried.accepted:  # a controller died before it had asked the source
                state, blame = AttemptState.REFUSED, Blame.NOBODY
            return await self._settled(operation, tried, state, blame, tried.reason)
        if unwanted and status in BEFORE_PIVOT:
            self._acting.abort(attempt.migration)
        if attempt.state is AttemptState.DECIDED:
            return await self._settled(operation, tried, AttemptState.STARTED, Blame.NOBODY, "")
        return tried

    async def _settled(
        self, operation: OperationRecord, tried: Tried, state: AttemptState, blame: Blame, reason: str
    ) -> Tried:
        at, words = self._clock.now().isoformat(), "" if state is AttemptState.ARRIVED else reason
        attempt, epoch = tried.attempt, operation.epoch
        now = await self._fleet.settle_attempt(attempt, epoch, state, reason=words, blame=blame, at=at)
        self._acting.trouble.pop(attempt.migration, None)
        return tried.model_copy(update={"attempt": now or attempt})

    async def _ending(
        self, operation: OperationRecord, look: Look, *, active: bool
    ) -> tuple[OperationStatus | None, str]:
        """In which status it ends now; what else it waits for where it does not. With VMs left, only after a
        while."""
        status, now = look.ending(operation.status, active=active), self._clock.monotonic_ms()
        if status is None or not look.left:
            self._stuck.pop(operation.id, None)
        elif now - self._stuck.setdefault(operation.id, now) < PATIENCE_MS:
            return None, _HOPES
        if status is None:
            return None, look.waits_for(operation.status)
        against = await self._against(operation, look)
        return (None, against) if against else (status, "")

    async def _against(self, operation: OperationRecord, look: Look) -> str:
        """Do the hosts themselves list the VMs that the records have there? Otherwise it does not end yet: why."""
        if operation.status is not OperationStatus.RUNNING:
            return ""
        unheard = await self._observer.ask(operation.hosts)
        now, hosts = (await self._observer.observe()).snapshot, look.situation.hosts
        if unheard:
            why = "; ".join(f"{host} has not listed its VMs: {said}" for host, said in unheard.items())
        elif _inside(now, hosts) != _inside(look.situation.snapshot, hosts):
            why = "its hosts list other VMs than before: it is planned again"
        else:
            return ""
        self._planning.again(operation.id)
        return why

    async def _decide(self, operation: OperationRecord, look: Look, number: int) -> None:
        """Write what begins now, and begin it."""
        if not look.situation.admitted.start or not operation.status.starts:
            return
        at = self._clock.now().isoformat()
        new = tuple(
            Attempt(
                migration=migration_id(operation.id, move.vm, number + place),
                operation=operation.id,
                number=number + place,
                vm=move.vm,
                name=move.name,
                source=move.source,
                target=move.target,
                purpose=move.purpose,
                decided_at=at,
            )
            for place, move in enumerate(look.situation.admitted.start)
        )
        decision = Decision(
            operation=operation.id,
            epoch=operation.epoch,
            status=operation.status,
            attempts=new,
            seen=look.migrations,
            rules=look.rules,
        )
        self._planning.again(operation.id)
        if not await self._fleet.decide(decision):
            log.info("the fleet has changed: an operation is planned again", operation=operation.id)
            return
        for attempt in new:
            self._acting.begin(operation, attempt)

    def _stopping(self, operation: OperationRecord, tried: Sequence[Tried]) -> Standing:
        """Of one that starts nothing and only waits for what runs."""
        running = [one.attempt for one in tried if not one.attempt.state.ended]
        silent = self._observer.silent(one.source for one in running)
        why = f"{', '.join(silent)} cannot be asked how its migrations have ended" if silent else ""
        return Standing(left=operation.standing.left, running=len(running), waits_for=why)

    async def stand(self, operation: OperationRecord, standing: Standing) -> None:
        """Store how it stands, where that is news."""
        old, now = operation.standing, self._clock.now()
        if _words(old) == _words(standing) and not _is_old(old.at, now):
            return
        await self._fleet.stand(operation.id, operation.epoch, standing.model_copy(update={"at": now.isoformat()}))


def _inside(snapshot: Snapshot, hosts: Collection[str]) -> set[str]:
    return {vm.uuid for vm in snapshot.vms if vm.may_be_on(hosts)}


def migration_id(operation: str, vm: str, number: int) -> str:
    """The same for the same attempt, whichever controller begins it."""
    return str(uuid5(UUID(operation), f"{vm}/{number}"))


def _words(standing: Standing) -> object:
    return standing.waits, standing.left, standing.waits_for, standing.running


def _is_old(at: str, now: datetime) -> bool:
    """Also one of the future: a clock was set back."""
    return not at or abs((now - datetime.fromisoformat(at)).total_seconds()) * 1000 >= STAND_EVERY_MS
