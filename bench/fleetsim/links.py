"""Copies that share links: who gets which rate, and what is left after a while. Pure.

Streams share a link as TCP does, max-min fair, and know nothing of the planner's wishes. While a copy goes on, its
guest writes: of what was sent, d bytes/s are dirty again, less the more is left anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = 1e-6
STEP_S = 0.02
"""The longest step of `advance`: what is dirtied depends on what is left."""


@dataclass
class Copy:
    """One memory stream."""

    vm: str
    source: str
    target: str
    size: float
    """Bytes of the guest's memory."""
    dirty: float
    """Bytes/s that the guest writes."""
    cap: float = float("inf")
    """Bytes/s that it may send."""
    slowed: float = 0.0
    """The share of its writing that throttling takes away."""
    left: float = -1.0
    sent: float = 0.0
    rate: float = 0.0
    elapsed_s: float = 0.0

    def __post_init__(self) -> None:
        if self.left < 0:
            self.left = self.size

    @property
    def links(self) -> tuple[str, str]:
        """Those that it uses."""
        return f"out of {self.source}", f"into {self.target}"

    @property
    def writes(self) -> float:
        """Bytes/s, as the guest is allowed to now."""
        return self.dirty * (1 - self.slowed)

    def advance(self, seconds: float) -> None:
        """Some time goes by at the present rate."""
        self.elapsed_s += seconds
        while seconds > NOTHING:
            step = min(seconds, STEP_S)
            seconds -= step
            sent = min(self.left, self.rate * step)
            again = self.writes * step * (1 - self.left / self.size)
            self.sent, self.left = self.sent + sent, min(self.size, self.left - sent + again)


def fair_rates(copies: Sequence[Copy], room: dict[str, float]) -> list[float]:
    """Bytes/s for each copy: all grow alike until a link is full or a copy has what it may send. `room`: bytes/s of
    each link."""
    rates, left = [0.0] * len(copies), dict(room)
    growing = [n for n, copy in enumerate(copies) if copy.cap > 0]
    while growing:
        users = Counter(link for n in growing for link in copies[n].links)
        shares = [left[link] / number for link, number in users.items()]
        step = min(shares + [copies[n].cap - rates[n] for n in growing])
        for n in growing:
            rates[n] += step
        for link, number in users.items():
            left[link] -= step * number
        full = {link for link in users if left[link] <= NOTHING * room[link] + NOTHING}
        stopped = {n for n in growing if full & set(copies[n].links) or copies[n].cap - rates[n] <= NOTHING}
        growing = [n for n in growing if n not in stopped]
    return rates


class Links:
    """All links of a fleet, and the copies on them."""

    def __init__(self, room: dict[str, float]) -> None:
        """`room`: bytes/s of each host's link, in each direction."""
        self._room = {f"{way} {host}": rate for host, rate in room.items() for way in ("out of", "into")}
        self.copies: list[Copy] = []
        self.carried: Counter[str] = Counter()
        """Bytes so far, by link."""

    def set_room(self, host: str, bytes_s: float) -> None:
        """What its link carries from now on."""
        for way in ("out of", "into"):
            self._room[f"{way} {host}"] = bytes_s
        self.share()

    def room(self, host: str) -> float:
        """What its link carries, bytes/s."""
        return self._room[f"out of {host}"]

    def begin(self, copy: Copy) -> None:
        """It shares from now on."""
        self.copies.append(copy)
        self.share()

    def end(self, copy: Copy) -> None:
        """It does not any more."""
        if copy in self.copies:
            self.copies.remove(copy)
            copy.rate = 0.0
            self.share()

    def share(self) -> None:
        """Set each copy's rate."""
        for copy, rate in zip(self.copies, fair_rates(self.copies, self._room), strict=True):
            copy.rate = rate

    def advance(self, seconds: float) -> None:
        """Some time goes by."""
        for copy in self.copies:
            before = copy.sent
            copy.advance(seconds)
            for link in copy.links:
                self.carried[link] += int(copy.sent - before)
