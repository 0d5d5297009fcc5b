"""What is known of one move, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.table import Table

GAP_MS = 50


@dataclass
class Sample:
    """One move as seen from outside. Times in ms."""

    arm: str
    number: int
    downtime_ms: float
    """As the destination's libvirt tells."""
    blackout_ms: float
    """The longest gap between two replies to pings sent every 5 ms, from the request to `LOOK_S` after the end."""
    total_ms: float
    waited_ms: float | None = None
    """How long Sterna's copy waited for the network agent (P12)."""
    ahead_ms: float | None = None
    """How long before the guest's stop the destination's binding was asked to be activated, where it was."""

    gaps_ms: list[float] = field(default_factory=list)
    """Every gap longer than `GAP_MS`, in turn: whoever loses the port again later has several."""

    passes_ms: list[float] = field(default_factory=list)
    """How long before the guest's stop each pass of the copy began."""

    @property
    def excess_ms(self) -> float:
        """What the network adds to the guest's own downtime."""
        return self.blackout_ms - self.downtime_ms

    def __str__(self) -> str:
        waited = "" if self.waited_ms is None else f", waited {self.waited_ms:.0f} ms for the agent"
        ahead = "" if self.ahead_ms is None else f", activated {round(self.ahead_ms)} ms before the stop"
        gaps = f", gaps {[round(gap) for gap in self.gaps_ms]}" if len(self.gaps_ms) > 1 else ""
        return (
            f"{self.number + 1:3d} {self.arm:20s} downtime {self.downtime_ms:4.0f} ms, "
            f"blackout {self.blackout_ms:5.0f} ms, {self.excess_ms:+5.0f} ms{waited}{ahead}{gaps}"
        )


MEDIANS: tuple[Callable[[Sample], float], ...] = (
    lambda s: s.downtime_ms,
    lambda s: s.blackout_ms,
    lambda s: s.excess_ms,
)


def table(title: str, samples: Sequence[Sample]) -> Table:
    """Medians of each arm, and the worst of what the network adds."""
    shown = Table(title=title)
    for heading in ("", "moves", "downtime, ms", "blackout, ms", "blackout - downtime, ms", "worst", "waited, ms"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name in dict.fromkeys(sample.arm for sample in samples):
        mine = [sample for sample in samples if sample.arm == name]
        middle = [f"{statistics.median(value(s) for s in mine):.0f}" for value in MEDIANS]
        waited = [s.waited_ms for s in mine if s.waited_ms is not None]
        last = f"{statistics.median(waited):.0f}" if waited else "-"
        shown.add_row(name, str(len(mine)), *middle, f"{max(s.excess_ms for s in mine):.0f}", last)
    return shown
