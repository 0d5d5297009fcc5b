"""Where is the guest? The decision taken whenever a copy's outcome must be known (SPEC M5, M6, R0).

libvirt's return code is not evidence; what both hypervisors say is. Pure: observations in, verdict and a
sentence out. Called by `migration/transfer.py` and `migration/rollback.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sterna.domain.model import GuestState, Observation

GONE = (GuestState.SHUTOFF, GuestState.ABSENT)
MIGRATED = "migrated"
"""libvirt's reason for a SHUTOFF source whose destination confirmed that the guest runs there."""
FORGOTTEN = "unknown"
"""libvirt's reason for a SHUTOFF guest after its restart."""
MIGRATION_PAUSES = ("", "migration", "postcopy", "postcopy-failed", "unknown")
"""libvirt's reasons for a pause that a copy may have left; any other pause is somebody's wish."""


class Verdict(StrEnum):
    """What to do next about the copy."""

    START = "start"
    """Nothing has happened yet: start the copy."""
    WAIT = "wait"
    """libvirt is at it, or an answer is missing: ask again."""
    ARRIVED = "arrived"
    """The guest is the destination's: forward only."""
    STAYED = "stayed"
    """The guest runs on the source and no copy is under way: roll back."""
    STRANDED = "stranded"
    """The source's guest is paused by a failed copy and never ran elsewhere: let it run on, then roll back."""
    ENDED_AT_SOURCE = "ended-at-source"
    """Its QEMU is gone, and it last ran on the source: roll back, recorded as stopped."""
    ENDED_AT_DESTINATION = "ended-at-destination"
    """Its QEMU is gone, and it last ran on the destination: forward, recorded as stopped."""
    DOUBT = "doubt"
    """An invariant may be broken: touch nothing, say so, ask again."""


class Finding(NamedTuple):
    """A verdict and the sentence an operator reads."""

    verdict: Verdict
    why: str


def locate(
    source: Observation, destination: Observation, *, epoch: int, started: bool, handed_over: bool = False
) -> Finding:
    """Where the guest of migration `epoch` is, as both hypervisors say.

    `started`: its copy was ever begun. `handed_over`: the source's libvirt was seen to end its QEMU because the
    destination had confirmed that the guest runs there; the only trace a transient guest leaves.
    """
    if destination.state is GuestState.RUNNING:
        return _runs_at_destination(source, destination, epoch)
    if source.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the source's hypervisor does not answer")
    if source.job_active:
        return Finding(Verdict.WAIT, "libvirt is copying")
    if source.state is GuestState.RUNNING:
        if not started:
            return Finding(Verdict.START, "the guest runs on the source, nothing is under way")
        return Finding(Verdict.STAYED, "the guest runs on the source and no copy is under way")
    if destination.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the guest does not run on the source and the destination does not answer")
    if source.state is GuestState.PAUSED:
        return _paused_at_source(source, destination, epoch, started)
    return _gone_from_source(destination, epoch, handed_over or source.reason == MIGRATED)


def _runs_at_destination(source: Observation, destination: Observation, epoch: int) -> Finding:
    if destination.epoch != epoch:
        seen = destination.epoch
        return Finding(Verdict.DOUBT, f"the destination runs this guest with epoch {seen}, not {epoch}")
    if source.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the guest runs on the destination; the source does not answer")
    if source.job_active:
        return Finding(Verdict.WAIT, "the guest runs on the destination; libvirt is finishing on the source")
    if source.state is GuestState.RUNNING:
        return Finding(Verdict.DOUBT, "both hypervisors say the guest runs")
    return Finding(Verdict.ARRIVED, "the guest runs on the destination")


def _paused_at_source(source: Observation, destination: Observation, epoch: int, started: bool) -> Finding:
    if not started:
        return Finding(Verdict.STAYED, "the guest was paused on the source before the copy began")
    if destination.state is GuestState.PAUSED:
        if destination.ran:
            return Finding(Verdict.ARRIVED, "the guest ran on the destination and was paused there")
        return Finding(Verdict.WAIT, "paused on both hosts: libvirt is between handing over and starting")
    if _outcome_forgotten(destination, epoch):
        why = "the destination has a definition of this migration, and its libvirt has forgotten whether it ran"
        return Finding(
            Verdict.DOUBT, f"{why}; the source's guest is paused: look at its disks, then resume or end it"
        )
    if _ended_there(destination, epoch):
        return Finding(Verdict.ENDED_AT_DESTINATION, "the guest ran on the destination and ended there")
    if source.reason not in MIGRATION_PAUSES:
        return Finding(Verdict.STAYED, f"the guest is on the source, paused by somebody ({source.reason})")
    return Finding(Verdict.STRANDED, "paused on the source by a copy that failed; it never ran elsewhere")


def _ended_there(destination: Observation, epoch: int) -> bool:
    """It is remembered to have run. A definition proves nothing: it may be an old one, and libvirt's Finish writes
    it before the vCPUs run."""
    if destination.state is GuestState.SHUTOFF:
        return destination.ran and destination.epoch == epoch and destination.reason != "failed"
    return destination.ran


def _outcome_forgotten(destination: Observation, epoch: int) -> bool:
    """A libvirtd that was restarted says `unknown` of a guest without a QEMU, unless the agent remembers more."""
    ours = destination.state is GuestState.SHUTOFF and destination.epoch == epoch
    return ours and destination.reason == FORGOTTEN


def _gone_from_source(destination: Observation, epoch: int, handed_over: bool) -> Finding:
    if destination.state is GuestState.PAUSED:
        if destination.ran:
            return Finding(Verdict.ARRIVED, "the guest ran on the destination and was paused there")
        return Finding(Verdict.WAIT, "gone from the source, not yet running on the destination")
    if handed_over or _ended_there(destination, epoch):
        return Finding(Verdict.ENDED_AT_DESTINATION, "the guest ran on the destination and ended there")
    return Finding(Verdict.ENDED_AT_SOURCE, "the guest's QEMU ended on the source; it never ran elsewhere")
