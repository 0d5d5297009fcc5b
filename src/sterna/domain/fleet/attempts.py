"""What an operation has tried: each migration it decided on, how that ended, and what follows for the next plan.

A plan is made again and again from a snapshot. What it must not forget is here: hosts that refused a VM, how often
its migration failed, when it may be tried again, and where it was before the operation moved it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.plans import LeftOver, Purpose
from sterna.domain.fleet.reasons import RETRY_S, retry_after_s
from sterna.domain.fleet.snapshot import Vm
from sterna.domain.model import Refusal, Value
from sterna.domain.refusals import CATALOGUE, Against

MOST_SILENT = 2
"""Times that a destination cannot be asked about a VM, after which the VM is not sent there again."""
AT_ONCE = 3
"""Hosts that may refuse a VM before the next one is asked only after a while. What is wrong may be the source."""
MOST_REST_S = 600.0
"""The longest that a VM rests."""


class AttemptState(StrEnum):
    """How far a migration of an operation is, as far as the operation has to know."""

    DECIDED = "decided"
    """It is written that it shall begin. Whether it has been asked for is not known."""
    STARTED = "started"
    """Its source has it, or may have it."""
    ARRIVED = "arrived"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    """It never began."""

    @property
    def ended(self) -> bool:
        """It will not change any more."""
        return self not in (AttemptState.DECIDED, AttemptState.STARTED)


class Blame(StrEnum):
    """What a failed attempt speaks against."""

    HOST = "host"
    """The target: the VM is not sent there again."""
    VM = "vm"
    """The VM, wherever it would go: it is tried again a few times."""
    PASSING = "passing"
    """The target, perhaps only for a moment: it could not be asked. Twice, and the VM is not sent there again."""
    NOBODY = "nobody"
    """It is tried again, as often as it takes: something is under way with the VM that ends by itself."""


class Attempt(Value):
    """A migration that an operation has decided on."""

    migration: str
    """Its id, derived from what follows: whoever starts it starts the same one."""
    operation: str
    number: int
    """Of this operation, from 0, in the order in which they were decided."""
    vm: str
    """UUID."""
    name: str
    source: str
    target: str
    purpose: Purpose
    state: AttemptState = AttemptState.DECIDED
    blame: Blame = Blame.NOBODY
    reason: str = ""
    """Why it did not arrive."""
    decided_at: str = ""
    """ISO 8601 UTC, the clock of the controller that wrote it; so is `ended_at`."""
    rules: str = ""
    """Digest of what the placement rules ordered by which it was decided (`rules.orders`). '': by an earlier
    version."""
    ended_at: str = ""


def next_number(attempts: Iterable[Attempt]) -> int:
    """Of an operation's next attempt. Not all that were numbered before need have been written."""
    return max((attempt.number for attempt in attempts), default=-1) + 1


def back(attempt: Attempt) -> bool:
    """Was it to bring a VM back?"""
    return attempt.purpose is Purpose.BACK


def blame_of(refusals: Sequence[Refusal]) -> Blame:
    """What these refusals speak against. Those that pass matter only where there are no others. A code that this
    version does not know speaks against the host."""
    known = [CATALOGUE.get(refusal.code) for refusal in refusals]
    lasting = [entry for entry in known if entry is None or not entry.passing]
    of_vm = any(entry is not None and entry.against is Against.VM for entry in lasting or known)
    if lasting:
        return Blame.VM if of_vm else Blame.HOST
    return Blame.NOBODY if of_vm else Blame.PASSING


def since_arrival(attempts: Iterable[Attempt], *, undoing: bool) -> dict[str, list[Attempt]]:
    """VM -> what was tried with it since it last arrived, in order: on the way out, or on the way back."""
    found: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        if attempt.state is AttemptState.ARRIVED:
            found[attempt.vm] = []
        elif back(attempt) is undoing:
            found.setdefault(attempt.vm, []).append(attempt)
    return {vm: tried for vm, tried in found.items() if tried}


def marked(vms: Iterable[Vm], tried: Mapping[str, Sequence[Attempt]], *, undoing: bool = False) -> tuple[Vm, ...]:
    """The VMs with the hosts that they are not sent to again, and how often they have failed. An undo has one host
    for each VM, which is never avoided."""
    return tuple(_marked(vm, tried.get(vm.uuid, ()), undoing) for vm in vms)


def _marked(vm: Vm, tried: Sequence[Attempt], undoing: bool) -> Vm:
    ended = [one for one in tried if one.state.ended]
    failures = [one for one in ended if counts(one, undoing=undoing)]
    avoid = {} if undoing else _avoided(ended)
    if not avoid and not failures:
        return vm
    failed = f"on {failures[-1].target}: {failures[-1].reason}" if failures else ""
    change = {"avoid": vm.avoid | avoid, "tries": vm.tries + len(failures), "failed": failed}
    return vm.model_copy(update=change)


def _avoided(ended: Sequence[Attempt]) -> dict[str, str]:
    silent = Counter(one.target for one in ended if one.blame is Blame.PASSING)
    return {one.target: one.reason for one in ended if one.blame is Blame.HOST or silent[one.target] >= MOST_SILENT}


def counts(attempt: Attempt, *, undoing: bool = False) -> bool:
    """Is it one of the failures after which a VM is shown as what blocks its host? A host's refusal is not, where
    the VM can go to another one; nor an abort by a person."""
    if attempt.state is AttemptState.REFUSED:
        return attempt.blame is Blame.VM or (undoing and attempt.blame is Blame.HOST)
    return attempt.state is AttemptState.FAILED


def resting(tried: Mapping[str, Sequence[Attempt]], now: datetime, *, undoing: bool = False) -> dict[str, str]:
    """VMs that are not tried again yet, and why. A clock that was set back makes nobody wait longer."""
    found = {}
    for vm, again in rests_until(tried, now, undoing=undoing).items():
        last = tried[vm][-1]
        reason = last.reason or ("it was aborted" if last.state is AttemptState.CANCELLED else "it failed")
        why = f"{last.name} did not get to {last.target}: {reason}"
        found[vm] = f"{why}; it is tried again at {again:%H:%M:%S} UTC"
    return found


def rests_until(
    tried: Mapping[str, Sequence[Attempt]], now: datetime, *, undoing: bool = False
) -> dict[str, datetime]:
    """VMs that are not tried again yet, and when they are."""
    found = {}
    for vm, some in tried.items():
        if rest_s := _rest_s(some, undoing):
            ended = datetime.fromisoformat(some[-1].ended_at)
            again = ended + timedelta(seconds=rest_s)
            if ended <= now < again:
                found[vm] = again
    return found


def _rest_s(tried: Sequence[Attempt], undoing: bool) -> float:
    """After the last attempt. Longer with each one, except that others may take a VM that a host has refused."""
    last = tried[-1]
    if not last.state.ended:
        return 0.0
    elsewhere = [one for one in tried if not undoing and one.state is AttemptState.REFUSED and _of_target(one)]
    if last in elsewhere:
        refusals = sum(one.blame is Blame.HOST for one in elsewhere)
        return 0.0 if last.blame is Blame.HOST and refusals < AT_ONCE else RETRY_S
    return min(retry_after_s(len(tried) - len(elsewhere)), MOST_REST_S)


def _of_target(attempt: Attempt) -> bool:
    return attempt.blame in (Blame.HOST, Blame.PASSING)


def returns(attempts: Iterable[Attempt]) -> tuple[Return, ...]:
    """The VMs that an operation has moved and not brought back, with where each was before."""
    origin: dict[str, str] = {}
    at: dict[str, tuple[str, str]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        if attempt.state is AttemptState.ARRIVED:
            origin.setdefault(attempt.vm, attempt.source)
            at[attempt.vm] = attempt.name, attempt.target
    return tuple(
        Return(vm=vm, origin=origin[vm], put_on=on) for vm, (_, on) in sorted(at.items()) if on != origin[vm]
    )


def still_away(known: Iterable[Return], attempts: Iterable[Attempt]) -> tuple[Return, ...]:
    """Those of them that these attempts have not brought back yet, with where they are now."""
    arrived = [one for one in attempts if one.state is AttemptState.ARRIVED]
    at = {one.vm: one.target for one in sorted(arrived, key=lambda one: one.number)}
    now = (one.model_copy(update={"put_on": at.get(one.vm, one.put_on)}) for one in known)
    return tuple(one for one in now if one.put_on != one.origin)


def moved_away(attempts: Iterable[Attempt], hosts: Collection[str]) -> tuple[Return, ...]:
    """The VMs that operations have moved away from these hosts, with where each was before the first of the
    operations that moved it on, one after the other. Somebody else may have moved it since.

    A move that nobody of them has made ends such a chain; a rebalance does as well: its VMs are to stay."""
    origin: dict[str, str] = {}
    at: dict[str, str] = {}
    arrived = (one for one in attempts if one.state is AttemptState.ARRIVED)
    for one in sorted(arrived, key=lambda one: (one.ended_at, one.operation, one.number)):
        if at.get(one.vm, one.source) != one.source:
            del origin[one.vm]
        at[one.vm] = one.target
        if one.purpose is Purpose.BALANCE or origin.setdefault(one.vm, one.source) == one.target:
            origin.pop(one.vm, None)
            del at[one.vm]
    found = ((vm, where) for vm, where in sorted(origin.items()) if where in hosts)
    return tuple(Return(vm=vm, origin=where, put_on=at[vm]) for vm, where in found)


def explained(left: Iterable[LeftOver], tried: Mapping[str, Sequence[Attempt]]) -> tuple[LeftOver, ...]:
    """What cannot move, with what the last host said that refused it."""
    return tuple(_explained(one, tried.get(one.vm, ())) for one in left)


def _explained(one: LeftOver, tried: Sequence[Attempt]) -> LeftOver:
    refused = [attempt for attempt in tried if attempt.state.ended and attempt.reason not in one.reason]
    if not refused:
        return one
    last = refused[-1]
    return one.model_copy(update={"reason": f"{one.reason}; the last to refuse was {last.target}: {last.reason}"})
