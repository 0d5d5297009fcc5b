"""One look at one operation: what has ended is written down, a plan is made, and what may begin is begun."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID, uuid5

import structlog

from sterna.controller.operations.acting import Acting
from sterna.controller.operations.between import BetweenCalls
from sterna.controller.operations.calculating import calculated
from sterna.controller.operations.observing import BEFORE_PIVOT, Observer
from sterna.controller.operations.patience import Patience
from sterna.controller.operations.planning import Look, Planning
from sterna.controller.operations.rolling import RollingLooks
from sterna.controller.operations.waking import Waking
from sterna.domain.fleet.admission import ending
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, next_number
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.rules import orders
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.kit.digests import digest_of
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, VmPage
from sterna.ports.operations import Decision, OperationRecord, Standing, Tried

log = structlog.get_logger(__name__)

STAND_EVERY_MS = 10_000.0
"""How often the forecast of an operation is stored where nothing else of it has changed."""
ASK_AGAIN_MS = 10_000.0
"""After hosts have not listed their VMs: all hosts of an operation are asked together."""
_ENDED = {
    Status.COMPLETED: (AttemptState.ARRIVED, Blame.NOBODY),
    Status.FAILED: (AttemptState.FAILED, Blame.HOST),
    Status.CANCELLED: (AttemptState.CANCELLED, Blame.NOBODY),
}
_HOPES = "VMs that cannot be moved are looked at for half a minute"
_CHANGED = "its hosts list other VMs than before: it is planned again"
_NOT_BEGUN = "it had not started when the operation was stopped"


class Looks:
    """At the operations that this controller holds."""

    def __init__(self, fleet: Fleet, observer: Observer, acting: Acting, waking: Waking, clock: Clock) -> None:
        self._fleet, self._acting, self._waking, self._clock = fleet, acting, waking, clock
        self._observer, self._planning, self._patience = observer, Planning(observer, clock), Patience(clock)
        self._unheard: dict[str, tuple[float, str]] = {}
        """Of operations that could end, but for hosts that have not listed their VMs: until when none is asked
        again (monotonic ms), and why."""
        self.between = BetweenCalls(fleet, clock)
        self._rolling = RollingLooks(fleet, observer, self._planning, self._patience, self.between, clock)

    def forget(self, unfinished: Collection[str]) -> None:
        """All others have ended."""
        self._patience.forget(unfinished)
        self._planning.forget(unfinished)
        self.between.forget(unfinished)
        for id in self._unheard.keys() - set(unfinished):
            del self._unheard[id]

    async def look_at(self, operation: OperationRecord) -> bool:
        """Has it ended? Raises Unreachable."""
        tried = [await self._followed(operation, one) for one in await self._fleet.attempts(operation.id)]
        attempts = [one.attempt for one in tried]
        self._waking.follow(operation.id, attempts)
        active = any(not attempt.state.ended for attempt in attempts)
        empty: tuple[str, ...] = ()
        if operation.status is OperationStatus.STOPPING:
            running = await self._rolling.still_runs(operation)
            status, standing = ending(operation.status, active=active), self._stopping(operation, tried)
            if running:
                status, standing = None, standing.model_copy(update={"waits_for": running})
        elif operation.kind is OperationKind.ROLLING and operation.status is not OperationStatus.UNDOING:
            found = await self._rolling.look(operation, tried, self._acting.trouble)
            operation, standing, status = found.operation, found.standing, None if active else found.status
            if found.look is not None:
                await self._begin(operation, found.look, next_number(attempts))
        else:
            rolling = operation.kind is OperationKind.ROLLING
            awaited = await self._rolling.awaited(operation) if rolling else ""
            look = await self._planning.look(operation, tried)
            standing = look.standing(tried, self._acting.trouble)
            status, why = await self._ending(operation, look, active=active)
            if awaited:
                status, why = None, awaited
                self._patience.renew(operation.id)
            if status is OperationStatus.DONE and operation.kind.empties:
                empty = _expected(operation, look)
            standing = standing.model_copy(update={"waits_for": why})
            await self._begin(operation, look, next_number(attempts))
        if status is None:
            await self.stand(operation, standing)
            return False
        at = self._clock.now().isoformat()
        if not await self._fleet.conclude(operation, status, standing.model_copy(update={"at": at}), at, empty):
            self._planning.again(operation.id)
            await self.stand(operation, standing.model_copy(update={"waits_for": _CHANGED}))
            return False
        log.info("an operation has ended", operation=operation.id, status=status, left=len(standing.left))
        self._patience.renew(operation.id)  # an operator may have it go on
        self._planning.again(operation.id)
        return True

    async def _followed(self, operation: OperationRecord, tried: Tried) -> Tried:
        """The attempt as it is now, written down; begun or aborted where that is due."""
        attempt, status = tried.attempt, tried.status
        if attempt.state.ended or self._acting.busy(attempt.migration):
            return tried
        of_undo = operation.status is OperationStatus.UNDOING and attempt.number >= operation.counts_from
        unwanted = operation.status.aborts and not of_undo
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
        self._acting.forget(attempt.migration)
        return tried.model_copy(update={"attempt": now or attempt})

    async def _ending(
        self, operation: OperationRecord, look: Look, *, active: bool
    ) -> tuple[OperationStatus | None, str]:
        """In which status it ends now; what else it waits for where it does not. With VMs left, only after a
        while."""
        status = look.ending(operation.status, active=active)
        if status is None or not look.left:
            self._patience.renew(operation.id)
        elif not self._patience.is_over(operation.id):
            return None, _HOPES
        if status is None:
            return None, look.waits_for(operation.status)
        against = await self._against(operation, look, status)
        return (None, against) if against else (status, "")

    async def _against(self, operation: OperationRecord, look: Look, status: OperationStatus) -> str:
        """Do the hosts themselves list the VMs that the records have there? Otherwise it does not end yet: why. Of
        one that empties no hosts nothing is asked."""
        if operation.status is not OperationStatus.RUNNING or not operation.kind.empties:
            return ""
        until_ms, why = self._unheard.get(operation.id, (0.0, ""))
        if self._clock.monotonic_ms() < until_ms:
            return why
        unheard = await self._observer.ask(operation.hosts)
        now, then, hosts = (await self._observer.observe()).snapshot, look.situation.snapshot, look.situation.hosts
        changed = await calculated(len(now.vms), lambda: _inside(now, hosts) != _inside(then, hosts))
        if unheard:
            why = "; ".join(f"{host} has not listed its VMs: {said}" for host, said in unheard.items())
            self._unheard[operation.id] = self._clock.monotonic_ms() + ASK_AGAIN_MS, why
        elif changed:
            why = _CHANGED
        elif status is not OperationStatus.DONE or not (why := await self._claimed(_expected(operation, look))):
            return ""
        self._planning.again(operation.id)
        return why

    async def _claimed(self, hosts: Collection[str]) -> str:
        """Which of the hosts says that it runs a VM, which has been claimed since by another one."""
        for host in hosts:
            for vm in await self._fleet.page_of_vms(VmPage(host=host, states=(GuestState.RUNNING,), limit=1)):
                return f"{host} says that it runs {vm.name}, and so does {vm.host}: it is planned again"
        return ""

    async def _begin(self, operation: OperationRecord, look: Look, number: int) -> None:
        """Write what begins now, and begin it; abort what comes into hosts that are to be empty."""
        for migration in look.aborts:
            self._acting.abort(migration)
        if not look.situation.admitted.start or not operation.status.starts:
            return
        at, rules = self._clock.now().isoformat(), digest_of(orders(look.rules))
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
                rules=rules,
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
        written = await self._fleet.decide(decision)
        self._waking.follow(operation.id, written, also=True)
        if len(written) < len(new):
            log.info("the fleet has changed: an operation is planned again", operation=operation.id)
        for attempt in written:
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


def _expected(operation: OperationRecord, look: Look) -> tuple[str, ...]:
    """Those of the hosts that a drain has emptied of which something will be heard."""
    gone = {host.name for host in look.situation.snapshot.hosts if host.gone}
    return tuple(host for host in operation.hosts if host not in gone)


def _inside(snapshot: Snapshot, hosts: Collection[str]) -> set[str]:
    return {vm.uuid for vm in snapshot.vms if vm.may_be_on(hosts)}


def migration_id(operation: str, vm: str, number: int) -> str:
    """The same for the same attempt, whichever controller begins it."""
    return str(uuid5(UUID(operation), f"{vm}/{number}"))


def _words(standing: Standing) -> object:
    return standing.waits, standing.left, standing.waits_for, standing.running, standing.hosts


def _is_old(at: str, now: datetime) -> bool:
    """Also one of the future: a clock was set back."""
    return not at or abs((now - datetime.fromisoformat(at)).total_seconds()) * 1000 >= STAND_EVERY_MS
