"""What an operation should do next: the planner is asked about the fleet as it is, and its answer kept for a while.

A plan of many VMs takes a while to make. It is made again when something of the operation or a placement rule has
changed, and now and then, because others change the fleet as well. Targets of the plan before are kept where they
still have room.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sterna.controller.operations.calculating import calculated
from sterna.controller.operations.observing import PREPARING, Observed, Observer
from sterna.domain.fleet.admission import Situation, Wait, admit, ending, held, waits_for
from sterna.domain.fleet.attempts import (
    Attempt,
    explained,
    marked,
    resting,
    rests_until,
    returns,
    since_arrival,
    still_away,
)
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.operations import BringBack, Drain, Mays, Rebalance, Return, Rolling
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import LeftOver, Plan, Purpose
from sterna.domain.fleet.rules import Rule
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.stages import HostStep, Stage, between_s, named
from sterna.domain.policies import DEFAULT, POLICIES
from sterna.ports.clock import Clock
from sterna.ports.operations import OperationRecord, Standing, Tried

AGAIN_MS = 10_000.0
"""How old a plan may be while nothing of its operation changes."""


@dataclass(frozen=True)
class Forecast:
    """Of an operation's end, in seconds from now."""

    expected_s: float
    promised_s: float
    late_s: float | None = None
    """By how much the promise misses the deadline. None: it does not."""


Wanted = BringBack | Drain | Rebalance | Rolling


@dataclass(frozen=True)
class Wave:
    """Hosts that are to be emptied now, and hosts that take VMs before others."""

    draining: frozenset[str]
    done: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Look:
    """What was found at one look."""

    situation: Situation
    left: tuple[LeftOver, ...]
    forecast: Forecast
    aborts: tuple[str, ...] = ()
    """Migrations into a host that is to be empty."""
    migrations: frozenset[str] = frozenset()
    """Ids of all that were taken into account."""
    rules: tuple[Rule, ...] = ()
    """Placement rules, as they were."""
    paused: str = ""
    """Why nothing begins, whatever the plan says."""

    def ending(self, status: OperationStatus, *, active: bool) -> OperationStatus | None:
        """See domain.fleet.admission.ending."""
        return ending(status, active=active, situation=self.situation)

    def waits_for(self, status: OperationStatus) -> str:
        """See domain.fleet.admission.waits_for."""
        return waits_for(status, self.situation)

    def standing(self, tried: Sequence[Tried], trouble: Mapping[str, str]) -> Standing:
        """In words. What was decided and has not begun waits as well."""
        going_on = [one for one in tried if not one.attempt.state.ended]
        waits = [_about_to_begin(one.attempt, trouble) for one in going_on if one.status is None]
        waits += self.situation.admitted.waits
        if self.paused:
            waits += [_wait(move.vm, move.name, move.source, move.target) for move in self.situation.admitted.start]
            waits = [wait.model_copy(update={"reason": self.paused}) for wait in waits]
        return Standing(
            waits=tuple(waits),
            left=self.left,
            running=sum(one.status is not None for one in going_on),
            expected_s=self.forecast.expected_s,
            promised_s=self.forecast.promised_s,
            late_s=self.forecast.late_s,
        )


def _wait(vm: str, name: str, source: str, target: str, reason: str = "") -> Wait:
    return Wait(vm=vm, name=name, source=source, target=target, reason=reason)


def _about_to_begin(attempt: Attempt, trouble: Mapping[str, str]) -> Wait:
    reason = trouble.get(attempt.migration, f"{attempt.source} is being asked to start")
    return _wait(attempt.vm, attempt.name, attempt.source, attempt.target, reason)


@dataclass(frozen=True)
class _Kept:
    key: tuple[object, ...]
    at_ms: float
    look: Look


class Planning:
    """Plans of the operations that this controller carries out."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer, self._clock = observer, clock
        self._kept: dict[str, _Kept] = {}
        self._plans: dict[str, Plan] = {}
        self._rests: dict[str, tuple[frozenset[str], Forecast]] = {}
        """Of rolling operations: hosts that wait for their waves, and how long these waves take."""

    async def look(self, operation: OperationRecord, tried: Sequence[Tried], wave: Wave | None = None) -> Look:
        """What is to be done next. `wave`: of a rolling operation, the one to be emptied. Raises Unreachable."""
        attempts = [one.attempt for one in tried]
        states = ((one.attempt.number, one.attempt.state, one.status in PREPARING) for one in tried)
        key = (operation.status, operation.counts_from, await self._observer.rules(), wave, *states)
        kept, now_ms = self._kept.get(operation.id), self._clock.monotonic_ms()
        if kept is not None and kept.key == key and now_ms - kept.at_ms < AGAIN_MS:
            return kept.look
        observed = await self._observer.observe()
        look = await self._planned(operation, attempts, observed, wave or Wave(frozenset(operation.hosts)))
        self._kept[operation.id] = _Kept(key=key, at_ms=now_ms, look=look)
        return look

    def again(self, operation: str) -> None:
        """Plan it again at the next look."""
        self._kept.pop(operation, None)

    def forget(self, unfinished: Collection[str]) -> None:
        """All others have ended."""
        for known in (self._kept, self._plans, self._rests):
            for id in known.keys() - set(unfinished):
                del known[id]

    async def waves(
        self, operation: OperationRecord, tried: Sequence[Tried], steps: Sequence[HostStep]
    ) -> tuple[Plan, Snapshot]:
        """Of a rolling operation, for its hosts that wait; and the fleet as it was planned with. Raises
        Unreachable."""
        observed, attempts = await self._observer.observe(), [one.attempt for one in tried]
        counted = [one for one in attempts if one.number >= operation.counts_from]
        wanted, previous = rolling_of(operation, steps), self._plans.get(operation.id)

        def planned() -> Plan:
            vms = marked(observed.snapshot.vms, since_arrival(counted, undoing=False))
            return plan(observed.snapshot.model_copy(update={"vms": vms}), wanted, previous)

        made = await calculated(len(observed.snapshot.vms), planned)
        self._plans[operation.id] = made
        first = made.waves[:1]
        after = wanted.hosts - wanted.done - {name for wave in first for name in wave.hosts}
        self._rests[operation.id] = after, _after(made, first[0].open_s if first else 0.0)
        return made, observed.snapshot

    async def rest(self, operation: OperationRecord, tried: Sequence[Tried], steps: Sequence[HostStep]) -> Forecast:
        """How long the waves take that have not begun. Raises Unreachable."""
        waiting = named(steps, Stage.WAITING)
        known = self._rests.get(operation.id)
        if not waiting:
            return Forecast(0.0, 0.0)
        if known is None or known[0] != waiting:
            made, _ = await self.waves(operation, tried, steps)
            known = waiting, Forecast(made.promise.expected_s, made.promise.promised_s)
            self._rests[operation.id] = known
        return known[1]

    async def _planned(
        self, operation: OperationRecord, attempts: Sequence[Attempt], observed: Observed, wave: Wave
    ) -> Look:
        now, previous = self._clock.now(), self._plans.get(operation.id)
        look = await calculated(
            len(observed.snapshot.vms), lambda: _look(operation, attempts, observed, wave, now, previous)
        )
        if operation.kind is OperationKind.DRAIN or operation.status is OperationStatus.UNDOING:
            self._plans[operation.id] = look.situation.plan
        return look


def _look(
    operation: OperationRecord,
    attempts: Sequence[Attempt],
    observed: Observed,
    wave: Wave,
    now: datetime,
    previous: Plan | None,
) -> Look:
    """What is found in the fleet as it was observed. Only calculates."""
    undoing = operation.status is OperationStatus.UNDOING
    brings_back = undoing or operation.kind is OperationKind.BRING_BACK
    counted = [one for one in attempts if one.number >= operation.counts_from]
    tried = since_arrival(counted, undoing=undoing)
    back = returns(attempts) if undoing else still_away(operation.returns, attempts)
    vms = marked(observed.snapshot.vms, tried, undoing=brings_back)
    snapshot = observed.snapshot.model_copy(update={"vms": vms})
    wanted = _wanted(operation, back, wave, now, undoing=undoing)
    made = plan(snapshot, wanted, previous)
    rest = resting(tried, now, undoing=brings_back) | held(snapshot, observed.holders)
    rests_s = {vm: (at - now).total_seconds() for vm, at in rests_until(tried, now, undoing=brings_back).items()}
    empties = operation.kind.empties and not undoing
    own = {attempt.vm for attempt in attempts if not attempt.state.ended}
    situation = Situation(
        hosts=wave.draining if empties else _places(back, snapshot),
        snapshot=snapshot,
        plan=made,
        admitted=admit(snapshot, made, wanted.may, preparing=observed.preparing, resting=rest),
        own=frozenset(own),
        settling=observed.settling,
        empties=empties,
    )
    return Look(
        situation=situation,
        left=explained(made.left, tried),
        forecast=forecast_of(made, wanted, own, rests_s),
        aborts=tuple(observed.holders[vm] for vm in made.aborts if vm in observed.holders),
        migrations=observed.migrations,
        rules=observed.rules,
        paused="the operation is paused" if operation.status is OperationStatus.PAUSED else "",
    )


def _wanted(
    operation: OperationRecord, back: Sequence[Return], wave: Wave, now: datetime, *, undoing: bool
) -> BringBack | Drain | Rebalance:
    """What is asked of the planner now. `back`: the VMs that are to be brought back."""
    if undoing:
        return BringBack(returns=tuple(back), may=may_of(operation))
    if operation.kind is OperationKind.BRING_BACK:
        return home_of(operation, back)
    if operation.kind is OperationKind.REBALANCE:
        return rebalance_of(operation)
    return drain_of(operation, now).model_copy(update={"hosts": wave.draining, "prefer": wave.done})


def forecast_of(
    made: Plan, wanted: Wanted, own: Collection[str] = (), rests_s: Mapping[str, float] | None = None
) -> Forecast:
    """When what can be moved will have been moved. What others have begun is in its plan, and is not waited for.
    `own`: VMs whose migrations are the operation's. `rests_s`: VMs that are not tried before."""
    rests_s = rests_s or {}
    if isinstance(wanted, Rolling):
        return Forecast(made.promise.expected_s, made.promise.promised_s)
    hosts = wanted.hosts if isinstance(wanted, Drain) else frozenset[str]()
    mine = [
        max(move.end_s, rests_s.get(move.vm, 0.0) + move.end_s - move.start_s)
        for move in made.moves
        if not move.begun or move.vm in own or move.source in hosts
    ]
    whole, expected_s = made.promise, max(mine, default=0.0)
    promised_s = expected_s * (whole.promised_s / whole.expected_s if whole.expected_s else 1.0)
    within_s = wanted.finish_within_s if isinstance(wanted, Drain) else None
    late_s = promised_s - within_s if within_s is not None and promised_s > within_s else None
    return Forecast(expected_s, promised_s, late_s)


async def made_plan(snapshot: Snapshot, wanted: Wanted, previous: Plan | None = None) -> Plan:
    """The plan. One of many VMs is made beside the event loop."""
    return await calculated(len(snapshot.vms), lambda: plan(snapshot, wanted, previous))


def may_of(operation: OperationRecord) -> Mays:
    """What is permitted for its VMs."""
    known = POLICIES.get(operation.policy, POLICIES[DEFAULT])  # a later version may have dropped one
    return known.may if operation.may is None else operation.may


def drain_of(operation: OperationRecord, now: datetime) -> Drain:
    """What is left of it at this moment. It began when it was accepted."""
    within_s = operation.finish_within_s
    if within_s is not None and operation.created_at:
        within_s -= max(0.0, (now - datetime.fromisoformat(operation.created_at)).total_seconds())
    return Drain(hosts=frozenset(operation.hosts), may=may_of(operation), finish_within_s=within_s)


def home_of(operation: OperationRecord, back: Sequence[Return]) -> BringBack:
    """Of one that brings VMs back: those that are still away."""
    return BringBack(returns=tuple(back), may=may_of(operation), purpose=Purpose.HOME)


def rebalance_of(operation: OperationRecord) -> Rebalance:
    """What is to be evened out."""
    return Rebalance(hosts=frozenset(operation.hosts), threshold=operation.threshold, may=may_of(operation))


def rolling_of(operation: OperationRecord, steps: Sequence[HostStep]) -> Rolling:
    """What is left of it, but for the wave that is under way. Hosts that were skipped are not its any more."""
    done = named(steps, Stage.DONE)
    return Rolling(
        hosts=named(steps, Stage.WAITING) | done,
        most_closed=operation.most_closed,
        of_one_domain=operation.of_one_domain,
        reboot_s=between_s(steps),
        done=done,
        opening=frozenset(step.host for step in steps if step.stage.closed),
        host_rules=not operation.ignores_host_rules,
        may=may_of(operation),
    )


def _after(made: Plan, first_s: float) -> Forecast:
    """How long it takes without its first seconds."""
    whole_s = made.promise.expected_s
    share = (whole_s - first_s) / whole_s if whole_s else 0.0
    return Forecast(whole_s - first_s, made.promise.promised_s * share)


def _places(back: Sequence[Return], snapshot: Snapshot) -> frozenset[str]:
    """Where the VMs are and were that nobody has deleted or moved since. Of a rebalance: none."""
    at = {vm.uuid: vm.host for vm in snapshot.vms}
    still = [one for one in back if at.get(one.vm) == one.put_on]
    return frozenset(host for one in still for host in (one.origin, one.put_on))
