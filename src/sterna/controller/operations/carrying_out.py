"""Operations are carried out: looked at again and again, each by the controller that holds it.

At each look what has ended is written down, a plan is made of the fleet as it is, and what may begin now is written
and then begun. Nothing that matters is only in memory, so any controller goes on where another one died. Holding
keeps two from planning at once. That nothing is done twice does not depend on it: what is written names the
holder's epoch, and an attempt that was given up is never admitted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID, uuid4, uuid5

import structlog

from sterna.controller.operations.acting import Acting
from sterna.controller.operations.observing import BEFORE_PIVOT, Observer
from sterna.controller.operations.planning import Look, Planning
from sterna.domain.errors import SternaError
from sterna.domain.fleet.admission import ending
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, back
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.status import Status
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.operations import Decision, OperationRecord, Standing, Tried

log = structlog.get_logger(__name__)

LOOK_S = 2.0
LEASE_MS = 15_000.0
"""A holder that shows no sign of life for so long, by this controller's own clock, has died or is cut off. Seven
looks: one may wait for a database that is slow."""
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
_NO_BUS = "the controller that carried it out has lost the message bus; any other one may go on"
_HOPES = "VMs that cannot be moved are looked at for half a minute"
_NOT_BEGUN = "it had not begun when the operation was stopped"


class Operations:
    """One controller's part in them."""

    def __init__(self, fleet: Fleet, observer: Observer, acting: Acting, clock: Clock) -> None:
        self._fleet, self.acting, self._clock = fleet, acting, clock
        self._observer, self._planning = observer, Planning(observer, clock)
        self._holder = str(uuid4())
        self._leases: dict[str, tuple[tuple[str, int, int], float]] = {}
        """Of operations that others hold: as last seen, and since when (monotonic ms)."""
        self._held: dict[str, int] = {}
        """Of those that this controller holds: the epoch."""
        self._stuck: dict[str, float] = {}
        """Since when nothing of an operation could be moved (monotonic ms)."""
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look, until `stop`."""
        self._looking = asyncio.create_task(self._look_for_ever(), name="operations")

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()

    async def stop(self) -> None:
        """Look no more, and leave what is held to another controller. Migrations go on."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self.acting.stop()
        await self._release()

    async def _release(self, why: str = "") -> None:
        """Leave what is held to another controller, and say why in how it stands."""
        for id, epoch in self._held.items():
            with contextlib.suppress(SternaError):  # the lease ends by itself
                if why:
                    operation = await self._fleet.operation(id)
                    await self._stand(operation, operation.standing.model_copy(update={"waits_for": why}))
                await self._fleet.release_operation(id, epoch)
        self._held.clear()

    async def _look_for_ever(self) -> None:
        while True:
            self._wake.clear()
            try:
                with own_cancellation_only():
                    await self.look()
            except SternaError as error:
                log.info("operations are looked at again later", why=error.message)
            except Exception:
                log.exception("looking at operations failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def look(self) -> None:
        """Once at each operation that has not ended. Raises Unreachable.

        Without the bus nothing can be done here, and another controller may have it."""
        if not self._observer.connected():
            await self._release(_NO_BUS)
            return
        unfinished = await self._fleet.unfinished_operations()
        self._forget({one.id for one in unfinished})
        for known in unfinished:
            held = await self._hold(known)
            if held is None:
                continue
            try:
                await self._look_at(held)
            except SternaError as error:
                log.info("an operation is looked at again later", operation=held.id, why=error.message)
            except Exception:
                log.exception("an operation cannot be carried out now", operation=held.id)

    def _forget(self, unfinished: Collection[str]) -> None:
        for known in (self._leases, self._held, self._stuck):
            for id in known.keys() - set(unfinished):
                del known[id]
        self._planning.forget(unfinished)

    # ------------------------------------------------------------ the lease

    async def _hold(self, known: OperationRecord) -> OperationRecord | None:
        """The operation, if this controller may carry it out now."""
        if known.holder == self._holder:
            held = await self._fleet.keep_operation(known.id, known.epoch)
        elif known.holder and not self._is_over(known):
            held = None
        else:
            held = await self._fleet.take_operation(known, self._holder)
            if held is not None:
                log.info(
                    "an operation is carried out here", operation=held.id, epoch=held.epoch, status=held.status
                )
        if held is None:
            self._held.pop(known.id, None)
            return None
        self._leases.pop(held.id, None)
        self._held[held.id] = held.epoch
        return held

    def _is_over(self, known: OperationRecord) -> bool:
        """Has its holder shown no sign of life for too long?"""
        now, lease = self._clock.monotonic_ms(), (known.holder, known.epoch, known.beat)
        seen, since = self._leases.get(known.id, (lease, now))
        if seen != lease:
            since = now
        self._leases[known.id] = lease, since
        return now - since >= LEASE_MS

    # ------------------------------------------------------------ one look at one operation

    async def _look_at(self, operation: OperationRecord) -> None:
        tried = [await self._followed(operation, one) for one in await self._fleet.attempts(operation.id)]
        attempts = [one.attempt for one in tried]
        active = any(not attempt.state.ended for attempt in attempts)
        if operation.status is OperationStatus.STOPPING:
            status, standing = ending(operation.status, active=active), self._stopping(operation, tried)
        else:
            look = await self._planning.look(operation, tried)
            standing = look.standing(tried, self.acting.trouble)
            status, why = await self._ending(operation, look, active=active)
            standing = standing.model_copy(update={"waits_for": why})
            for migration in look.aborts:
                self.acting.abort(migration)
            await self._decide(operation, look, len(attempts))
        if status is None:
            await self._stand(operation, standing)
            return
        at = self._clock.now().isoformat()
        if await self._fleet.conclude(operation, status, standing.model_copy(update={"at": at}), at):
            log.info("an operation has ended", operation=operation.id, status=status, left=len(standing.left))
            self._held.pop(operation.id, None)
            self._stuck.pop(operation.id, None)  # an operator may have it go on
            self._planning.again(operation.id)

    async def _followed(self, operation: OperationRecord, tried: Tried) -> Tried:
        """The attempt as it is now, written down; begun or aborted where that is due."""
        attempt, status = tried.attempt, tried.status
        if attempt.state.ended or self.acting.busy(attempt.migration):
            return tried
        unwanted = operation.status.aborts and not (operation.status is OperationStatus.UNDOING and back(attempt))
        if status is None and unwanted:
            return await self._settled(operation, tried, AttemptState.CANCELLED, Blame.NOBODY, _NOT_BEGUN)
        if status is None:
            if operation.status.starts:
                self.acting.begin(operation, attempt)
            return tried
        if status in _ENDED:
            state, blame = _ENDED[status]
            if status is Status.FAILED and not tried.accepted:  # a controller died before it had asked the source
                state, blame = AttemptState.REFUSED, Blame.NOBODY
            return await self._settled(operation, tried, state, blame, tried.reason)
        if unwanted and status in BEFORE_PIVOT:
            self.acting.abort(attempt.migration)
        if attempt.state is AttemptState.DECIDED:
            return await self._settled(operation, tried, AttemptState.STARTED, Blame.NOBODY, "")
        return tried

    async def _settled(
        self, operation: OperationRecord, tried: Tried, state: AttemptState, blame: Blame, reason: str
    ) -> Tried:
        at, words = self._clock.now().isoformat(), "" if state is AttemptState.ARRIVED else reason
        attempt, epoch = tried.attempt, operation.epoch
        now = await self._fleet.settle_attempt(attempt, epoch, state, reason=words, blame=blame, at=at)
        self.acting.trouble.pop(attempt.migration, None)
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
            self.acting.begin(operation, attempt)

    def _stopping(self, operation: OperationRecord, tried: Sequence[Tried]) -> Standing:
        """Of one that starts nothing and only waits for what runs."""
        running = [one.attempt for one in tried if not one.attempt.state.ended]
        silent = self._observer.silent(one.source for one in running)
        why = f"{', '.join(silent)} cannot be asked how its migrations have ended" if silent else ""
        return Standing(left=operation.standing.left, running=len(running), waits_for=why)

    async def _stand(self, operation: OperationRecord, standing: Standing) -> None:
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
