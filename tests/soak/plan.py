"""Which faults strike when, on what, and for how long: a pure function of the seed, so that a run can be replayed.

What a run does with its guests in the meantime is drawn from the same seed, but depends on how long things take.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

HOSTS = ("host1", "host2")
FIRST_S = 5.0
"""The guests move a while before anything happens."""
APART_S = (0.5, 12.0)
"""Between two strikes."""
MOST_AT_ONCE = 3
QUIET_S = 2.0
"""A part that was healed is left alone so long: it may still be starting."""
DEATH_S = (0.2, 8.0)
"""How long what was killed is away."""
OUTAGE_S = (0.5, 15.0)
"""How long a link is broken."""
HANG_S = (3.0, 34.0)
QEMUS = 5
"""The weight of all QEMUs together."""


@dataclass(frozen=True)
class Part:
    """What can break, and how. Strikes on one part never overlap, whatever they are."""

    name: str
    faults: tuple[str, ...]
    weight: float = 1


@dataclass(frozen=True)
class FaultHook:
    """A fault that begins `at_s` after the run's start and is healed `for_s` later."""

    at_s: float
    fault: str
    part: str
    for_s: float

    @property
    def ends_s(self) -> float:
        return round(self.at_s + self.for_s, 2)


def parts(guests: Sequence[str], controllers: int, database: str) -> list[Part]:
    """All that can break in a lab of two hosts."""
    found = [Part("nats-server", ("kill", "hang"), 3), Part("tgtd", ("hang",))]
    for host in HOSTS:
        found.append(Part(f"agent {host}", ("kill", "hang"), 3))
        found.append(Part(f"slow-client {host}", ("flood",)))
        found.append(Part(f"libvirtd {host}", ("kill", "hang"), 2))
        found.append(Part(f"ovsdb-server {host}", ("kill", "hang")))
        found.append(Part(f"ovs-vswitchd {host}", ("kill", "hang")))
        found += [Part(f"link {kind} {host}", ("cut", "drop")) for kind in ("stream", "control", "bus")]
        # Never cut: after a refused connect libiscsi does not try again (docs/lab-notebook/field-notes.md).
        found.append(Part(f"link storage {host}", ("drop",)))
    found += [Part(f"controller {number}", ("kill", "hang"), 2) for number in range(1, controllers + 1)]
    one = QEMUS / (2 * len(guests))
    found += [
        Part(f"qemu {guest} {role}", ("hang",), one) for guest in guests for role in ("source", "destination")
    ]
    if database == "postgresql":
        found.append(Part("postgresql", ("kill", "hang"), 3))
    return found


def plan(seed: int, seconds: float, breakable: Sequence[Part]) -> list[FaultHook]:
    """The faults of a run of that length, in the order in which they begin. All are healed before it ends."""
    draw = random.Random(seed)
    strikes: list[FaultHook] = []
    lately: list[FaultHook] = []
    now = FIRST_S
    while now < seconds:
        lately = [s for s in lately if round(s.ends_s + QUIET_S, 2) > now]
        under_way = [s for s in lately if s.ends_s > now]
        if len(under_way) >= MOST_AT_ONCE:
            now = min(s.ends_s for s in under_way)
            continue
        resting = {s.part for s in lately}
        free = [part for part in breakable if part.name not in resting]
        if free:
            (part,) = draw.choices(free, [part.weight for part in free])
            fault = draw.choice(part.faults)
            strike = FaultHook(now, fault, part.name, round(draw.uniform(*_lasts(fault)), 2))
            if strike.ends_s <= seconds and not any(_clash(strike, other) for other in lately):
                strikes.append(strike)
                lately.append(strike)
        now = round(now + draw.uniform(*APART_S), 2)
    return strikes


def _clash(one: FaultHook, other: FaultHook) -> bool:
    """Would the two together end a guest? libvirtd, started again while a QEMU hangs, ends that QEMU."""
    kinds = {(strike.part.partition(" ")[0], strike.fault) for strike in (one, other)}
    return kinds == {("libvirtd", "kill"), ("qemu", "hang")}


def _lasts(fault: str) -> tuple[float, float]:
    return {"kill": DEATH_S, "hang": HANG_S, "flood": HANG_S}.get(fault, OUTAGE_S)
