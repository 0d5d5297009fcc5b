"""The parts of a guest's downtime, from what each host saw by its own clock; two hosts' clocks are never compared.

    source        last pass begins -> guest stops -> QEMU hands over -> all sent destination
    all here -> guest runs -> network notified

Made of events while they come (`SourceTimes`, `DestinationTimes`), journaled by both hosts, put together by the
report. A switch to post-copy is not covered: its pages come after the guest runs.
"""

from __future__ import annotations

from sterna.domain.entries.destination_notes import Arrival
from sterna.domain.entries.notes import SwitchOver
from sterna.domain.model import Value

LEAST_PAUSE_MS = 100
"""A pass that begins sooner after the stop than this proves nothing: two events may be reported in another
order."""
STOPPED, DEVICE, SENT = "suspended-migrated", "migration-device", "migration-completed"
"""Events: the source's vCPUs are stopped; QEMU begins with the rest and the devices; all was sent (or came)."""
REPORTED_BY_QEMU = frozenset({DEVICE, SENT})
"""Events that stand in the journal as times only."""


class Downtime(Value):
    """Parts of the downtime in ms, each measured on one host; None if not measured."""

    last_pass_ms: float | None = None
    """Source: the last pass before the guest is paused. The guest is still running."""
    stop_ms: float | None = None
    """Source: from the pause until QEMU sends the rest of the memory. libvirt completes the copies of disks."""
    device_state_ms: float | None = None
    """Source: sending the rest of the memory and the device state."""
    resume_ms: float | None = None
    """Destination: from having received everything to running: libvirt hands over, then QEMU starts the vCPUs."""
    network_ms: float | None = None
    """Destination: from running until the network was notified; 0 if it was notified before."""
    reason: str = ""
    """Why it is unknown."""


class SourceTimes:
    """The source's part, from its events."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._pass_ms: float | None = None
        self._sent_on_ms: float | None = None
        """The last pass that began although the guest stood still."""

    def take(self, kind: str, at_ms: float | None) -> SwitchOver | None:
        """One more event; the whole record once all has been sent."""
        if at_ms is None:
            return None
        if kind == "iteration" and STOPPED not in self._at:
            self._pass_ms = at_ms
        elif kind == "iteration" and DEVICE not in self._at:
            self._sent_on_ms = at_ms
        if kind == "resumed":  # in mid-copy: what was stopped before is over
            self._at.pop(STOPPED, None)
        if kind in (STOPPED, "resumed"):
            self._sent_on_ms = None
        if kind in (STOPPED, DEVICE):
            self._at[kind] = at_ms
        if kind != SENT or STOPPED not in self._at:
            return None
        return self._record(at_ms)

    def _record(self, sent_ms: float) -> SwitchOver:
        """libvirt calls every stop while it copies one for the switch-over. But after a switch-over has begun, QEMU
        begins no pass before its device state: where one began, the guest had been paused in mid-copy."""
        stopped, device, paused = self._at[STOPPED], self._at.get(DEVICE), self._sent_on_ms
        if paused is not None and paused - stopped < LEAST_PAUSE_MS:
            paused = None
        return SwitchOver(
            last_pass_ms=_between(self._pass_ms, stopped),
            stop_ms=_between(stopped if paused is None else paused, device),
            device_state_ms=_between(device, sent_ms),
            paused_ms=None if paused is None else _between(stopped, paused),
        )


class DestinationTimes:
    """The destination's part, from its events and what it does itself."""

    def __init__(self) -> None:
        self._here_ms: float | None = None
        self._runs_ms: float | None = None

    def take(self, kind: str, at_ms: float | None) -> None:
        """One more event; the last one is that it runs."""
        if kind == SENT:
            self._here_ms = at_ms
        elif kind == "resumed-migrated":
            self._runs_ms = at_ms

    def record(self, announced_ms: float | None) -> Arrival | None:
        """The network was notified at `announced_ms`; None: before the guest ran. None where the guest came in
        another way."""
        if self._runs_ms is None:
            return None
        return Arrival(
            resume_ms=_between(self._here_ms, self._runs_ms),
            network_ms=0.0 if announced_ms is None else _between(self._runs_ms, announced_ms),
        )


def _between(first: float | None, last: float | None) -> float | None:
    """None, too, where the events came in an order that makes no sense."""
    if first is None or last is None or last < first:
        return None
    return round(last - first, 3)


def downtime(source: SwitchOver | None, destination: Arrival | None) -> Downtime:
    """Both parts together."""
    left, came = source or SwitchOver(), destination or Arrival()
    return Downtime(
        last_pass_ms=left.last_pass_ms,
        stop_ms=left.stop_ms,
        device_state_ms=left.device_state_ms,
        resume_ms=came.resume_ms,
        network_ms=came.network_ms,
        reason="" if source or destination else "no agent watched the switch-over",
    )
