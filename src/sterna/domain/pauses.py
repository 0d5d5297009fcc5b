"""Was the guest paused for another reason than its migration? From both hosts' journals. Pure. libvirt counts the
downtime from the moment the source's vCPUs stop, whoever stopped them, until the destination's libvirt is done.
Where an operator or an I/O error paused the guest, that is not the downtime of a switch-over.
"""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain.entries.destination import VmUpdated
from sterna.domain.entries.destination_notes import RanHere
from sterna.domain.entries.notes import Saw, SwitchOver
from sterna.domain.journal import Entry, Kind
from sterna.domain.model import GuestState, Value

_WORDS = {
    "paused": "by somebody",
    "user": "by somebody",
    "ioerror": "by an I/O error of a disk",
    "watchdog": "by its watchdog",
    "crashed": "because it crashed",
    "api-error": "because libvirt failed to resume it",
    "pmsuspended": "it is suspended to RAM",
}
"""Why a guest is paused: details of libvirt's events, and its reasons of a state."""
_RESUMED = ("resumed", "resumed-migrated")
_BY_SOMEBODY = ("user", "paused")


class Pause(Value):
    """When the guest was paused and why, from both journals."""

    before: str = ""
    """The guest was paused on the source when its switch-over came: by whom or what. '' if it ran."""
    now: str = ""
    """It was not running on the destination when its move was completed: what it was. '' if it ran."""
    ran_there: bool = True
    """It ran on the destination at some moment, and was not stopped there by a fault."""

    def no_downtime(self, source: str, destination: str) -> str:
        """Why libvirt's downtime is not one; '' where it is."""
        if self.before:
            return f"the guest did not run at the switch-over: paused on {source} before it, {self.before}"
        return "" if self.ran_there else f"the guest has not run on since: {self.now} on {destination}"


def words_of(reason: str) -> str:
    """libvirt's reason for a pause, in words."""
    return _WORDS.get(reason, f"reason: {reason}" if reason else "for a reason not known")


def pause_of(source: Sequence[Entry], destination: Sequence[Entry]) -> Pause:
    """From the entries of both sides, each in order."""
    before = ""
    for entry in source:
        saw, switched = Saw.of(entry), SwitchOver.of(entry)
        if saw and Saw.about(entry) == "suspended":
            before = words_of(saw.detail)
        elif saw and Saw.about(entry) in _RESUMED:
            before = ""
        elif switched and switched.paused_ms:
            before = before or f"for {switched.paused_ms / 1000:.1f} s"
    done = (e for e in reversed(destination) if e.row == "F8" and e.kind is Kind.DONE)
    seen = next(map(VmUpdated.read, done), VmUpdated())
    reason = seen.power_reason or ""
    if seen.power_state != GuestState.PAUSED:
        return Pause(before=before)
    ran = any(map(RanHere.of, destination))
    by_others = seen.power_reason is None or reason in _BY_SOMEBODY
    return Pause(before=before, now=f"paused {words_of(reason)}", ran_there=ran and by_others)
