"""One look at a rolling operation: each of its hosts goes on as far as it can, and the next wave begins.

What a host is said to be, closing it and opening it are written in one transaction (`advance_hosts`). Only then is
something done. `domain/fleet/stages.py` has the stages, and what leads from one to the next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from sterna.controller.operations.between import BetweenCalls, is_asked
from sterna.controller.operations.calculating import calculated
from sterna.controller.operations.observing import Observer
from sterna.controller.operations.patience import Patience
from sterna.controller.operations.planning import Forecast, Look, Planning, Wave
from sterna.domain.errors import Conflict, Refused
from sterna.domain.fleet.admission import Admitted, Situation, ending, waits_for
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.plans import LeftOver
from sterna.domain.fleet.rules import RuleKind
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.stages import (
    Change,
    Heard,
    HostStep,
    Stage,
    begun,
    between_s,
    come_back,
    deadline_s,
    ended_as,
    missing,
    moved,
    named,
    overdue,
    wave_of,
)
from sterna.domain.model import GuestState
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, VmPage
from sterna.ports.operations import OperationRecord, Seen, Standing, Tried

log = structlog.get_logger(__name__)

MOST_NAMED = 3
_THERE = tuple(state for state in GuestState if state is not GuestState.ABSENT)
_STILL_RUNS = "what was asked for {} has not ended yet"
_CHANGED = "its hosts list other VMs than before: it is planned again"


@dataclass(frozen=True)
class Found:
    """What one look has found."""

    operation: OperationRecord
    """As it is now: it may have paused."""
    standing: Standing
    look: Look | None = None
    """At the hosts that are being emptied; None: there are none."""
    status: OperationStatus | None = None
    """In which it ends, as far as its hosts are concerned."""


@dataclass
class _At:
    """One look, as far as it is."""

    operation: OperationRecord
    steps: list[HostStep]
    heard: Mapping[str, Heard]
    says: dict[str, str]
    """What a host waits for."""

    def at(self, stage: Stage) -> list[HostStep]:
        return [step for step in self.steps if step.stage is stage]


class RollingLooks:
    """At the rolling operations that this controller holds."""

    def __init__(
        self,
        fleet: Fleet,
        observer: Observer,
        planning: Planning,
        patience: Patience,
        between: BetweenCalls,
        clock: Clock,
    ) -> None:
        self._fleet, self._observer, self._clock = fleet, observer, clock
        self._planning, self._patience, self._between = planning, patience, between

    async def look(self, operation: OperationRecord, tried: Sequence[Tried], trouble: Mapping[str, str]) -> Found:
        """Raises Unreachable; Conflict where something of it has changed meanwhile."""
        at = await self._back(operation)
        wave = Wave(draining=named(at.steps, Stage.DRAINING), done=named(at.steps, Stage.DONE))
        look = await self._planning.look(at.operation, tried, wave) if wave.draining else None
        if look is not None:
            await self._emptied(at, look, tried)
        starts = at.operation.status.starts
        if starts:
            await self._begin_between(at)
        self._say(at)
        status = None
        if starts and not any(step.stage.closed for step in at.steps):
            status = ended_as(at.steps)
            if status is None:
                await self._next_wave(at, tried)
        standing = look.standing(tried, trouble) if look is not None else _nothing_to_empty(tried)
        return Found(at.operation, await self._standing(at, standing, tried), look, status)

    async def awaited(self, operation: OperationRecord) -> str:
        """Of an undo: what its hosts have to be waited for, lest they are rebooted under their VMs. '': nothing."""
        at = await self._back(operation)
        self._say(at)
        fix = f"; where nothing will happen to a host any more: `sterna operation done {operation.id} HOST`"
        return _some(at.says) + fix if at.says else ""

    # ------------------------------------------------------------ hosts that come back

    async def _back(self, operation: OperationRecord) -> _At:
        """Open what is back. Where a host is late, the operation pauses."""
        steps = await self._fleet.host_steps(operation.id)
        heard = await self._observer.heard([step.host for step in steps if step.stage.closed])
        at = _At(operation, steps, heard, {})
        for _ in (Stage.BACK, Stage.DONE):
            back = come_back(at.steps, operation.between, heard, self._clock.now())
            await self._advance(at, self._unless_asked(at, back))
        why = overdue(at.steps, operation.between, heard, self._clock.now())
        if why and operation.status is OperationStatus.RUNNING:
            await self._advance(at, (), pause=why)
            at.operation = operation.model_copy(update={"status": OperationStatus.PAUSED, "paused_because": why})
            log.warning("an operation pauses", operation=operation.id, why=why)
        return at

    def _unless_asked(self, at: _At, changes: Sequence[Change]) -> list[Change]:
        """Those of hosts for which nothing is asked at this moment: a command that ran on would reboot a host that
        takes VMs."""
        running = self._between.still_runs(at.operation, [change.was for change in changes])
        at.says |= {host: _STILL_RUNS.format(host) for host in running}
        return [change for change in changes if change.was.host not in running]

    async def still_runs(self, operation: OperationRecord) -> str:
        """Of one that is being stopped: what it has asked for and has not ended. ''; nothing."""
        if operation.kind is not OperationKind.ROLLING:
            return ""
        running = self._between.still_runs(operation, await self._fleet.host_steps(operation.id))
        return _some({host: _STILL_RUNS.format(host) for host in running})

    async def _advance(
        self, at: _At, changes: Sequence[Change], *, pause: str = "", seen: Seen | None = None
    ) -> None:
        """Raises Conflict where that is out of date."""
        if not await self._written(at, changes, pause=pause, seen=seen):
            raise Conflict("something of it has changed meanwhile")

    async def _written(
        self, at: _At, changes: Sequence[Change], *, pause: str = "", seen: Seen | None = None
    ) -> bool:
        if not changes and not pause:
            return True
        now = self._clock.now().isoformat()
        if not await self._fleet.advance_hosts(at.operation, changes, pause, seen, now):
            self._planning.again(at.operation.id)
            return False
        new = {change.now.host: change.now for change in changes}
        at.steps = [new.get(step.host, step) for step in at.steps]
        for change in changes:
            if change.now.stage is not change.was.stage:
                self._planning.again(at.operation.id)
                log.info("a host goes on", operation=at.operation.id, host=change.now.host, stage=change.now.stage)
        return True

    # ------------------------------------------------------------ hosts that are emptied

    async def _emptied(self, at: _At, look: Look, tried: Sequence[Tried]) -> None:
        """Hosts that are empty, and hosts that cannot be emptied."""
        empty = []
        for step in at.at(Stage.DRAINING):
            situation = _of_host(look.situation, step.host)
            own = (one.attempt for one in tried if not one.attempt.state.ended)
            active = any(step.host in (one.source, one.target) for one in own)
            status = ending(OperationStatus.RUNNING, active=active, situation=situation)
            left = [one for one in look.left if one.host == step.host]
            if status is OperationStatus.DONE:
                empty.append(step)
            elif status is OperationStatus.INCOMPLETE and left and at.operation.status.starts:
                if self._patience.is_over(at.operation.id, step.host):
                    await self._skip(at, step, left)
                continue
            elif why := waits_for(OperationStatus.RUNNING, situation):
                at.says[step.host] = why
            self._patience.renew(at.operation.id, step.host)
        if empty:
            await self._verify(at, empty)

    async def _skip(self, at: _At, step: HostStep, left: Sequence[LeftOver]) -> None:
        others = f"; and {len(left) - 1} other VMs" if len(left) > 1 else ""
        reason = left[0].reason + others
        await self._advance(
            at, [Change(was=step, now=moved(step, Stage.SKIPPED, self._clock.now(), reason=reason))]
        )

    async def _verify(self, at: _At, steps: Sequence[HostStep]) -> None:
        """Those of which the hosts themselves list no VMs."""
        unheard = await self._observer.ask([step.host for step in steps])
        now = (await self._observer.observe()).snapshot
        inside = {vm.host for vm in now.vms}
        for step in steps:
            if step.host in unheard:
                at.says[step.host] = f"{step.host} has not listed its VMs: {unheard[step.host]}"
                continue
            change = Change(was=step, now=moved(step, Stage.EMPTY, self._clock.now()))
            if step.host in inside or not await self._written(at, [change]):
                at.says[step.host] = _CHANGED
                self._planning.again(at.operation.id)

    async def _begin_between(self, at: _At) -> None:
        """Something may be done to the hosts that are empty, and is asked for."""
        await self._hand_over(at, at.at(Stage.EMPTY))
        for step in at.at(Stage.BETWEEN):
            if not is_asked(at.operation, step):
                continue
            vms = await self._fleet.page_of_vms(VmPage(host=step.host, states=_THERE, limit=1))
            if vms:
                at.says[step.host] = f"nothing is asked for {step.host}: {vms[0].name} has been started there"
            else:
                self._between.ask(at.operation, step)

    async def _hand_over(self, at: _At, steps: Sequence[HostStep]) -> None:
        """Write that something may be done to these hosts. All together, or else one by one.

        The life of an agent that is written with it is read right before: the next one counts as its return."""
        heard, seen = await self._partners_of(at, [step.host for step in steps])
        asks, now, begin = at.operation.between.asks, self._clock.now(), list[Change]()
        for step in steps:
            if asks and not heard[step.host].up:  # the life of its agent may be another one already
                why = heard[step.host].why
                at.says[step.host] = f"nothing is asked for {step.host}, which cannot be used: {why}"
            else:
                begin.append(begun(step, heard[step.host].boot, now))
        why = ""
        try:
            if await self._written(at, begin, seen=seen):
                return
        except Refused as error:  # another host has gone down since they were closed
            why = error.refusals[0].message
        if len(begin) > 1:
            for change in begin:
                await self._hand_over(at, [change.was])
        elif why:
            at.says[begin[0].was.host] = why
        else:  # somebody has started a VM there
            await self._advance(at, [Change(was=begin[0].was, now=moved(begin[0].was, Stage.DRAINING, now))])

    async def _partners_of(self, at: _At, hosts: Collection[str]) -> tuple[Mapping[str, Heard], Seen]:
        """What is known now of these hosts, and of those that rules name with them: which of all can be used."""
        rules = await self._observer.rules() if hosts and not at.operation.ignores_host_rules else ()
        near = (rule.hosts for rule in rules if rule.kind is RuleKind.NOT_DOWN_TOGETHER)
        partners = {name for group in near if not set(group).isdisjoint(hosts) for name in group}
        heard = await self._observer.heard(sorted(partners.union(hosts)))
        return heard, Seen(usable=frozenset(name for name, one in heard.items() if one.up))

    # ------------------------------------------------------------ waves

    async def _next_wave(self, at: _At, tried: Sequence[Tried]) -> None:
        """Close the hosts of the next wave. Where none can be emptied for a while, the rest is skipped."""
        plan, fleet = await self._planning.waves(at.operation, tried, at.steps)
        wave = set(plan.waves[0].hosts) if plan.waves else set[str]()
        unheard = await self._observer.ask(wave)
        not_now = {host: f"{host} has not listed its VMs: {why}" for host, why in unheard.items()} or plan.skipped
        heard = wave - unheard.keys()
        if not heard:
            await self._give_up(at, not_now, at.at(Stage.WAITING) if not wave else _of(at, wave))
            return
        now_there = (await self._observer.observe()).snapshot
        if await calculated(len(fleet.vms), lambda: _vms_of(fleet, heard) != _vms_of(now_there, heard)):
            at.says |= dict.fromkeys(heard, _CHANGED)
            return
        self._patience.renew(at.operation.id)
        now, number = self._clock.now(), wave_of(at.steps)
        begin = [Change(was=step, now=moved(step, Stage.DRAINING, now, wave=number)) for step in _of(at, heard)]
        await self._advance(at, begin, seen=_seen(fleet))
        log.info("a wave begins", operation=at.operation.id, wave=number, hosts=sorted(heard))

    async def _give_up(self, at: _At, reasons: Mapping[str, str], steps: Sequence[HostStep]) -> None:
        """Skip these hosts, where none of them could be begun for a while."""
        why = {step.host: reasons.get(step.host, f"{step.host} cannot be emptied") for step in steps}
        at.says |= why
        if self._patience.is_over(at.operation.id):
            now = self._clock.now()
            skipped = [moved(step, Stage.SKIPPED, now, reason=why[step.host]) for step in steps]
            await self._advance(at, [Change(was=was, now=new) for was, new in zip(steps, skipped, strict=True)])

    # ------------------------------------------------------------ in words

    def _say(self, at: _At) -> None:
        """Why hosts are not back."""
        for step in at.steps:
            if step.stage in (Stage.BETWEEN, Stage.BACK):
                heard = at.heard[step.host]
                why = missing(step, at.operation.between, heard) or (
                    "" if heard.up else f"{step.host}: {heard.why}"
                )
                asked = self._between.trouble(at.operation, step) if not step.accepted_at else ""
                at.says.setdefault(step.host, f"{why}: {asked}" if why and asked else why)
        at.says = {host: why for host, why in at.says.items() if why}

    async def _standing(self, at: _At, standing: Standing, tried: Sequence[Tried]) -> Standing:
        """With its hosts, and the forecast of the whole."""
        rest = await self._planning.rest(at.operation, tried, at.steps)
        wave_s = _left_s(at, self._clock)
        forecast = Forecast(
            (standing.expected_s or 0.0) + wave_s + rest.expected_s,
            (standing.promised_s or 0.0) + wave_s + rest.promised_s,
        )
        return standing.model_copy(
            update={
                "hosts": at.says,
                "waits_for": at.operation.paused_because or _some(at.says),
                "expected_s": forecast.expected_s,
                "promised_s": forecast.promised_s,
            }
        )


def _left_s(at: _At, clock: Clock) -> float:
    """How long what is done to the wave's hosts still takes, once they are empty."""
    usual_s, now = between_s(at.steps), clock.now()
    if at.at(Stage.DRAINING) or at.at(Stage.EMPTY):
        return usual_s
    unlimited = at.operation.between.model_copy(update={"by_hand": False, "back_within_s": usual_s})
    left = [deadline_s(step, unlimited, now) or 0.0 for step in at.at(Stage.BETWEEN)]
    return max(0.0, *left) if left else 0.0


def _of(at: _At, hosts: Collection[str]) -> list[HostStep]:
    return [step for step in at.steps if step.host in hosts]


def _vms_of(fleet: Snapshot, hosts: Collection[str]) -> set[tuple[str, str, str]]:
    return {(vm.uuid, vm.host, vm.pinned) for vm in fleet.vms if vm.host in hosts}


def _seen(fleet: Snapshot) -> Seen:
    usable = frozenset(host.name for host in fleet.hosts if not host.unreachable)
    return Seen(usable=usable, closed=frozenset(host.name for host in fleet.hosts if host.closed))


def _of_host(situation: Situation, host: str) -> Situation:
    """The same for one of its hosts."""
    start = tuple(move for move in situation.admitted.start if move.source == host)
    waits = tuple(wait for wait in situation.admitted.waits if wait.source == host)
    mine = Admitted(start=start, waits=waits)
    return situation.model_copy(update={"hosts": frozenset({host}), "admitted": mine})


def _nothing_to_empty(tried: Sequence[Tried]) -> Standing:
    return Standing(running=sum(not one.attempt.state.ended and one.status is not None for one in tried))


def _some(says: Mapping[str, str]) -> str:
    """One sentence of a few hosts."""
    found = [says[host] for host in sorted(says)]
    more = f"; and {len(found) - MOST_NAMED} others" if len(found) > MOST_NAMED else ""
    return "; ".join(found[:MOST_NAMED]) + more
