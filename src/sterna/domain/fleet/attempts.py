"""What an operation has tried: each migration it decided on, how that ended, and what follows for the next plan.

A plan is made again and again from a snapshot. What it must not forget is here: hosts that refused a VM, how often
its migration failed, when it may be tried again, and where it was before the operation moved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.plans import LeftOver, Purpose
from sterna.domain.fleet.reasons import retry_after_s
from sterna.domain.fleet.snapshot import Vm
from sterna.domain.model import Refusal, Value
from sterna.domain.refusals import GROUPS, By
from sterna.domain.refusals.vm import VM

PASSING = frozenset({"source-down", "source-degraded", "destination-down", "destination-degraded", "check-failed"})
"""Refusals that say nothing of the VM or the host but that one of them cannot be asked now."""
_OF_VM = frozenset(
    entry.code
    for group in GROUPS
    for entry in group.entries
    if entry.by is By.SOURCE or (group is VM and entry.by is not By.DESTINATION)
)
"""Refusals that every other host would give as well."""


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
    NOBODY = "nobody"
    """It is tried again."""


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
    ended_at: str = ""


def back(attempt: Attempt) -> bool:
    """Was it to bring a VM back?"""
    return attempt.purpose is Purpose.BACK


def blame_of(refusals: Sequence[Refusal]) -> Blame:
    """What these refusals speak against."""
    codes = {refusal.code for refusal in refusals}
    if codes & PASSING:
        return Blame.NOBODY
    return Blame.VM if codes & _OF_VM else Blame.HOST


def since_arrival(attempts: Iterable[Attempt], *, undoing: bool) -> dict[str, list[Attempt]]:
    """VM -> what was tried with it since it last arrived, in order: on the way out, or on the way back."""
    found: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        if attempt.state is AttemptState.ARRIVED:
            found[attempt.vm] = []
        elif back(attempt) is undoing:
            found.setdefault(attempt.vm, []).append(attempt)
    return {vm: tried for vm, tried in found.items() if tried}


def marked(vms: Iterable[Vm], tried: Mapping[str, Sequence[Attempt]]) -> tuple[Vm, ...]:
    """The VMs with the hosts that they are not sent to again, and how often they have failed."""
    return tuple(_marked(vm, tried.get(vm.uuid, ())) for vm in vms)


def _marked(vm: Vm, tried: Sequence[Attempt]) -> Vm:
    against_host = {one.target: one.reason for one in tried if one.state.ended and one.blame is Blame.HOST}
    tries = sum(counts(one) for one in tried)
    if not against_host and not tries:
        return vm
    return vm.model_copy(update={"avoid": vm.avoid | against_host, "tries": vm.tries + tries})


def counts(attempt: Attempt) -> bool:
    """Is it one of the failures after which a VM is shown as what blocks its host? A host's refusal is not: the VM
    goes to another one."""
    if attempt.state is AttemptState.REFUSED:
        return attempt.blame is Blame.VM
    return attempt.state in (AttemptState.FAILED, AttemptState.CANCELLED)


def resting(tried: Mapping[str, Sequence[Attempt]], now: datetime) -> dict[str, str]:
    """VMs that are not tried again yet, and why. A clock that was set back makes nobody wait longer."""
    found = {}
    for vm, some in tried.items():
        last = some[-1]
        if not last.state.ended or (last.state is AttemptState.REFUSED and last.blame is Blame.HOST):
            continue
        ended = datetime.fromisoformat(last.ended_at)
        again = ended + timedelta(seconds=retry_after_s(max(1, sum(counts(one) for one in some))))
        if ended <= now < again:
            why = f"{last.name} did not get to {last.target}: {last.reason}"
            found[vm] = f"{why}; it is tried again at {again:%H:%M:%S} UTC"
    return found


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


def explained(left: Iterable[LeftOver], tried: Mapping[str, Sequence[Attempt]]) -> tuple[LeftOver, ...]:
    """What cannot move, with what the last host said that refused it."""
    return tuple(_explained(one, tried.get(one.vm, ())) for one in left)


def _explained(one: LeftOver, tried: Sequence[Attempt]) -> LeftOver:
    refused = [attempt for attempt in tried if attempt.state.ended and attempt.reason not in one.reason]
    if not refused:
        return one
    last = refused[-1]
    return one.model_copy(update={"reason": f"{one.reason}; the last to refuse was {last.target}: {last.reason}"})
