"""Lower bounds: no schedule of these moves is shorter, whatever the order and the rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.plans import Bounds
from sterna.domain.fleet.simulation import Job


def bounds(jobs: Sequence[Job], budgets: Budgets, paces: Paces) -> Bounds:
    """Of moves that are to begin together. Fewest bytes: each copy at all that its stream reaches."""
    if not jobs:
        return Bounds()
    limits = paces.tables.snapshot.limits
    load: dict[int, float] = {}
    moves_of: dict[int, int] = {}
    largest = arriving = 0.0
    for job in jobs:
        cap = paces.cap(job.source, job.target)
        alone = paces.alone_s(job.v, cap) if not job.begun else job.left / max(1.0, cap)
        if not math.isfinite(alone):
            continue
        largest = max(largest, alone)
        arriving += alone * cap
        moves_of[job.source] = moves_of.get(job.source, 0) + 1
        for budget in budgets.of(job.source, job.target):
            load[budget] = load.get(budget, 0.0) + alone * cap
    targets = sum(paces.into[h] for h, host in enumerate(paces.tables.hosts) if not host.closed)
    links = 2 * len(paces.tables.hosts)
    busy = {budget: size / budgets.room[budget] for budget, size in load.items()}
    return Bounds(
        egress_s=paces.fixed_s + max((s for b, s in busy.items() if b < links and b % 2 == 0), default=0.0),
        ingress_s=paces.fixed_s + arriving / targets if targets else 0.0,
        largest_s=paces.fixed_s + largest,
        uplinks_s=paces.fixed_s + max((s for b, s in busy.items() if b >= links), default=-paces.fixed_s),
        slots_s=max(moves_of.values(), default=0) * limits.prepare_s / max(1, limits.preparing),
    )
