"""Where is the guest? The decision taken whenever a copy's outcome must be known (protocol M5, M6, R0).

libvirt's return code is not evidence; what both hypervisors say is. Pure: observations in, verdict and a
sentence out. Called by `migration/source/find_guest.py` and `migration/source/rollback.py`.
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
SAVED = "saved"
"""libvirt's reason for a SHUTOFF guest whose memory is in a file: it is restored with the very devices it had."""
MIGRATION_PAUSES = ("", "migration", "api-error")
"""libvirt's reasons for a pause that a copy may have left; any other pause is an operator's, or QEMU's own.
`api-error`: it tried to let the guest run on after a copy that failed, and could not: the interlock refused. Not
`unknown`: libvirt says so where QEMU stopped by itself (an internal error); such a guest must not be resumed."""
BROKEN_POSTCOPY = "postcopy-failed"
"""libvirt's reason, on either side, when the stream broke in post-copy: both QEMUs wait to be joined again."""
POSTCOPY = ("postcopy", BROKEN_POSTCOPY)
"""The source's guest is paused for one of these, or the destination's runs with one: the source still holds pages.
A source paused so has sent its CPUs away: it must never run again."""


SPENT = (
    "the guest ran on the destination; the source's QEMU has given the rest of its memory up, and runs its old copy"
)
_STALE = "the guest ran on the destination, and libvirt let the source's old copy run again"


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
    IN_POSTCOPY = "in-postcopy"
    """It runs on the destination, and the source still holds pages of it: nothing is removed on either side."""
    BROKEN = "broken"
    """The same, but the stream is broken: join the two halves again."""
    HALF_GONE = "half-gone"
    """The same, but the QEMU that held the rest of its memory is gone, and the destination's libvirt has not
    noticed: have the QEMU there give the stream up, until its libvirt reports what has become of the guest."""
    SPENT = "spent"
    """The same, but the source's QEMU has given the migration up, and lets the old copy run: end it at once. It
    sends nothing any more."""
    LOST = "lost"
    """It ran on the destination in post-copy, and the QEMU that held the rest of its memory is gone: it can never
    run on. What is left on the destination is a shell."""
    STALE = "stale"
    """It ran on the destination, and libvirt let the source's old copy run again: hold that copy at once."""
    DOUBT = "doubt"
    """An invariant may be broken: touch nothing, say so, ask again."""


PASSED = (
    Verdict.ARRIVED,
    Verdict.ENDED_AT_DESTINATION,
    Verdict.IN_POSTCOPY,
    Verdict.BROKEN,
    Verdict.HALF_GONE,
    Verdict.SPENT,
    Verdict.LOST,
    Verdict.STALE,
)
"""The pivot lies behind: only forward."""


class Finding(NamedTuple):
    """A verdict and the sentence an operator reads."""

    verdict: Verdict
    why: str


def locate(
    source: Observation,
    destination: Observation,
    *,
    epoch: int,
    started: bool,
    handed_over: bool = False,
    switching: bool = False,
) -> Finding:
    """Where the guest of migration `epoch` is, as both hypervisors say.

    `started`: its copy was ever begun. `handed_over`: the guest was seen to run on the destination, or the source's
    libvirt to end its QEMU because the destination had confirmed that; the only trace a transient guest leaves.
    `switching`: the source's guest was seen to be paused for the switch-over: the destination may have run it.
    """
    if destination.state is GuestState.RUNNING:
        return _runs_at_destination(source, destination, epoch)
    if source.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the source's hypervisor does not answer")
    if source.state is GuestState.RUNNING:
        return _runs_at_source(source, destination, started, handed_over, switching)
    if source.state is GuestState.PAUSED and source.reason in POSTCOPY:
        return _sent_in_postcopy(destination, epoch, handed_over)
    if source.job_active:
        return Finding(Verdict.WAIT, "libvirt is copying")
    if destination.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the guest does not run on the source and the destination does not answer")
    if source.state is GuestState.PAUSED:
        return _paused_at_source(source, destination, epoch, started)
    if not started:  # also where libvirt reports `migrated`: it was moved past Sterna
        return Finding(Verdict.ENDED_AT_SOURCE, "the guest left the source before this migration's copy began")
    return _gone_from_source(destination, epoch, handed_over or source.reason == MIGRATED)


def _runs_at_source(
    source: Observation, destination: Observation, started: bool, handed_over: bool, switching: bool
) -> Finding:
    """The destination does not run it, or cannot be asked."""
    if spent(source, handed_over=handed_over or destination.ran):
        return Finding(Verdict.SPENT, SPENT)
    if source.job_active:
        return Finding(Verdict.WAIT, "libvirt is copying")
    if started and destination.ran and destination.state is GuestState.UNKNOWN:
        return Finding(Verdict.STALE, _STALE)
    if switching and destination.state is GuestState.UNKNOWN:
        why = "the guest runs on the source after a switch-over had begun, and the destination cannot be asked"
        return Finding(Verdict.WAIT, why)
    if not started:
        return Finding(Verdict.START, "the guest runs on the source, nothing is under way")
    return Finding(Verdict.STAYED, "the guest runs on the source and no copy is under way")


def _runs_at_destination(source: Observation, destination: Observation, epoch: int) -> Finding:
    if destination.epoch != epoch:
        seen = destination.epoch
        return Finding(Verdict.DOUBT, f"the destination runs this guest with epoch {seen}, not {epoch}")
    if source.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the guest runs on the destination; the source does not answer")
    coming = destination.job_active and (source.reason in POSTCOPY or source.state in GONE)
    if destination.reason in POSTCOPY or coming:
        return _in_postcopy(source, destination)
    if source.job_active:
        return Finding(Verdict.WAIT, "the guest runs on the destination; libvirt is finishing on the source")
    if source.state is GuestState.RUNNING:
        return Finding(Verdict.STALE, _STALE)
    return Finding(Verdict.ARRIVED, "the guest runs on the destination")


def _in_postcopy(source: Observation, destination: Observation) -> Finding:
    """The destination runs the guest, as far as its memory has come."""
    if source.state is GuestState.RUNNING:
        if source.reason in POSTCOPY:
            return Finding(Verdict.SPENT, SPENT)
        if source.job_active:  # seen before the switch
            return Finding(Verdict.WAIT, "the guest runs on the destination; libvirt is handing it over")
        return Finding(Verdict.DOUBT, "both hypervisors report that the guest runs")
    if BROKEN_POSTCOPY in (source.reason, destination.reason) and source.state is GuestState.PAUSED:
        return Finding(Verdict.BROKEN, "the guest runs on the destination, and the stream of its memory is broken")
    if source.state is GuestState.PAUSED:
        return Finding(Verdict.IN_POSTCOPY, "the guest runs on the destination; the source still holds pages")
    if source.reason != MIGRATED and destination.reason == BROKEN_POSTCOPY:
        why = "the guest ran on the destination, and the source's QEMU ended with the rest of its memory"
        return Finding(Verdict.LOST, why)
    why = "the source's QEMU is gone; the destination has not reported yet whether all of the memory has come"
    # MIGRATED: the source's libvirt has ended it, which it does once all of the memory has come.
    return Finding(Verdict.WAIT if source.reason == MIGRATED else Verdict.HALF_GONE, why)


def _sent_in_postcopy(destination: Observation, epoch: int, handed_over: bool) -> Finding:
    """The source is paused in post-copy, and the destination does not say that the guest runs."""
    if destination.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the guest was handed over in post-copy and the destination does not answer")
    if destination.state is GuestState.PAUSED:
        if not destination.ran:
            return Finding(Verdict.WAIT, "libvirt is between handing over and starting")
        if destination.reason == BROKEN_POSTCOPY:
            return Finding(Verdict.BROKEN, "the stream of the guest's memory is broken")
        if destination.job_active or destination.reason in POSTCOPY:
            return Finding(Verdict.IN_POSTCOPY, "the guest was paused on the destination in post-copy")
        return Finding(Verdict.ARRIVED, "the guest ran on the destination and was paused there")
    if handed_over or _ended_there(destination, epoch) or _outcome_forgotten(destination, epoch):
        return Finding(
            Verdict.ENDED_AT_DESTINATION, "the guest ran on the destination in post-copy and ended there"
        )
    return Finding(Verdict.ENDED_AT_SOURCE, "the destination's QEMU ended in post-copy before the guest ran there")


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
        why = "the guest was handed to the destination, where it may have run, and ended there"
        return Finding(Verdict.ENDED_AT_DESTINATION, why)
    if source.reason not in MIGRATION_PAUSES:
        return Finding(Verdict.STAYED, f"the guest is on the source, paused by other causes ({source.reason})")
    return Finding(Verdict.STRANDED, "paused on the source by a copy that failed; it never ran elsewhere")


def _ended_there(destination: Observation, epoch: int) -> bool:
    """It is remembered to have run. A definition proves nothing: it may be an old one, and libvirt's Finish writes
    it before the vCPUs run."""
    if destination.state is GuestState.SHUTOFF:
        return destination.ran and destination.epoch == epoch and destination.reason != "failed"
    return destination.ran


def _outcome_forgotten(destination: Observation, epoch: int) -> bool:
    """A libvirtd that was restarted reports `unknown` for a guest without a QEMU, unless the agent remembers
    more."""
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


def spent(source: Observation, *, handed_over: bool) -> bool:
    """Does the source run the old copy of a guest in post-copy? The destination need not be asked."""
    return handed_over and source.state is GuestState.RUNNING and source.reason in POSTCOPY


def left_behind(source: Observation, destination: Observation, *, epoch: int) -> bool:
    """Does libvirt still hold the source's paused guest of a pre-copy although the destination runs it?

    So it is for a moment in every hand-over. Where it stays so, the destination's answer was lost, and libvirt is
    about to let the source's guest run again.
    """
    paused = source.state is GuestState.PAUSED and source.reason == "migration"
    return paused and source.job_active and destination.state is GuestState.RUNNING and destination.epoch == epoch
