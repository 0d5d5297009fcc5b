"""One host of a migration is permanently gone, and an operator has declared it fenced: what may the other one do?

The declaration replaces one thing only: the answer of the dead host, "nothing runs here". Where the guest was when
its host died is still decided by what this half knows. Pure; a test per row. Called by `migration/` (source's
half), `agent/fencing.py` (destination's half, and the preview before anything is done).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sterna.domain.model import GuestState, Observation, Value
from sterna.domain.whereabouts import (
    GONE,
    MIGRATED,
    MIGRATION_PAUSES,
    POSTCOPY,
    SPENT,
    Finding,
    Verdict,
    spent,
)


class WriteOff(Value):
    """One half has ended a migration on its own; the other half, should it come back, learns this and complies."""

    outcome: str
    """`completed`: the guest is, or ended, where the destination is. `failed`: it is not there."""
    why: str


class SentWriteOff(WriteOff):
    """As the half that settled the migration journals and sends it."""

    host: str = ""
    """The one that was declared dead."""


class Survivor(StrEnum):
    """What the destination's half does when the source is dead and fenced."""

    TAKE_OVER = "take-over"
    """The guest is this host's: F6-F9, `completed`."""
    CLEAN_UP = "clean-up"
    """It is not here: R5, R6, R3, R7, `failed`."""
    HOLD = "hold"
    """Touch nothing and say why."""
    WAIT = "wait"
    """Ask again."""


class Decision(NamedTuple):
    """What to do, and the sentence an operator reads."""

    act: Survivor
    why: str


class SourceFacts(NamedTuple):
    """What the source's journal knows of the copy."""

    started: bool
    """It was ever begun."""
    handed_over: bool
    """The destination was seen to have the guest: `copy-succeeded`, or libvirt ended the source's QEMU for it."""
    shared_disks: bool
    """The guest writes to a disk that both hosts reach."""


def without_source(here: Observation, *, epoch: int, ran: bool) -> Decision:
    """The destination's half. `ran`: its journal remembers that the guest ran here for this migration."""
    ours = here.epoch == epoch
    if here.state is GuestState.UNKNOWN:
        return Decision(Survivor.WAIT, "this host's hypervisor does not answer")
    if here.state is GuestState.RUNNING:
        if ours:
            return Decision(Survivor.TAKE_OVER, "the guest runs here" + _torn(here))
        why = f"a guest of this UUID runs here that this migration did not bring (epoch {here.epoch}, not {epoch})"
        return Decision(Survivor.HOLD, f"{why}: shut it down, or end it, and this half is cleaned up")
    if here.state is GuestState.PAUSED:
        if not ours:
            why = f"a paused guest of this UUID is here with epoch {here.epoch}, not {epoch}"
            return Decision(Survivor.HOLD, f"{why}: end it, and this half is cleaned up")
        if ran or here.ran:
            return Decision(Survivor.TAKE_OVER, "the guest ran here and is paused" + _torn(here))
        return Decision(Survivor.CLEAN_UP, "the guest here still waits for memory that will never come")
    if ran or (here.ran and ours):
        return Decision(Survivor.TAKE_OVER, "the guest ran here and has ended")
    if here.state is GuestState.SHUTOFF and ours:
        # libvirt writes the definition in its last phase only: memory and disks had arrived whole.
        return Decision(Survivor.TAKE_OVER, "the guest arrived here and is off; whether it ran is unknown")
    return Decision(Survivor.CLEAN_UP, "the guest never came")


def _torn(here: Observation) -> str:
    """In post-copy part of a guest's memory is still on the source, and was lost with it."""
    if here.reason not in POSTCOPY:
        return ""
    return ", but part of its memory was lost with the source: it cannot go on; end it and start it again"


def without_destination(source: Observation, facts: SourceFacts) -> Finding:
    """The source's half, where the destination is silent and fenced: where is the guest?"""
    if source.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the source's hypervisor does not answer")
    if spent(source, handed_over=facts.handed_over):
        return Finding(Verdict.SPENT, SPENT)
    sent_away = source.state is GuestState.PAUSED and source.reason in POSTCOPY
    if source.job_active and not sent_away:  # in post-copy libvirt's job would stay for ever
        return Finding(Verdict.WAIT, "libvirt still copies; it will notice that the destination is gone")
    if source.state is GuestState.RUNNING:
        return Finding(Verdict.STAYED, "the guest runs on the source")
    if source.state is GuestState.PAUSED:
        return _paused_at_source(source, facts)
    if facts.handed_over or (facts.started and source.reason == MIGRATED):  # else it was moved past Sterna
        return Finding(Verdict.ENDED_AT_DESTINATION, "the guest was on the destination when that host died")
    why = "the guest's QEMU is gone on the source and nothing shows that it ever ran on the dead destination"
    return Finding(Verdict.ENDED_AT_SOURCE, why)


def _paused_at_source(source: Observation, facts: SourceFacts) -> Finding:
    if facts.handed_over or (facts.started and source.reason in POSTCOPY):
        return Finding(Verdict.ENDED_AT_DESTINATION, "the guest ran on the destination when that host died")
    if not facts.started:
        return Finding(Verdict.STAYED, "the guest was paused on the source before the copy began")
    if source.reason not in MIGRATION_PAUSES:
        return Finding(Verdict.STAYED, f"the guest is on the source, paused by other causes ({source.reason})")
    if not facts.shared_disks:
        why = "paused on the source by the copy; all its disks are its own, so none changed under it"
        return Finding(Verdict.STRANDED, why)
    return Finding(
        Verdict.DOUBT,
        "paused on the source at the very switch-over: the guest may have run on the dead destination and written "
        "to disks both share, and memory older than its disks destroys file systems. Sterna holds it. To accept "
        "that and let it run on: virsh resume; to give its memory up: virsh destroy, and start it again afterwards",
    )


def after_return(here: Observation, written_off: WriteOff) -> Finding:
    """A source that was declared dead is back: the destination has settled the migration in the meantime.

    Nothing is started here: by now the guest may have been started again anywhere.
    """
    if here.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the source's hypervisor does not answer")
    if here.job_active:
        return Finding(Verdict.WAIT, "libvirt is copying")
    taken = written_off.outcome == "completed"
    if here.state is GuestState.RUNNING:
        if taken:
            why = "this host was declared dead and the guest was taken over by the destination, but it runs here"
            return Finding(Verdict.DOUBT, f"{why}: end one of the two copies by hand")
        return Finding(Verdict.STAYED, "the guest runs on the source, which was declared dead")
    if taken:
        return Finding(Verdict.ARRIVED, f"this host was declared dead: {written_off.why}")
    if here.state in GONE:
        return Finding(Verdict.ENDED_AT_SOURCE, f"this host was declared dead: {written_off.why}")
    why = "this host was declared dead while the guest was here, and the guest is paused"
    return Finding(Verdict.DOUBT, f"{why}: check that it runs nowhere else, then virsh resume; else virsh destroy")
