"""The promised end: the expected one, from the moves played through, and how much later it may be."""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.pace import TWICE, Paces
from sterna.domain.fleet.plans import Help, Promise
from sterna.domain.fleet.schedule import Planned, play
from sterna.domain.fleet.simulation import Job
from sterna.domain.fleet.uncertainty import end_with

PROBABILITY = 0.9
"""That all moves are over by the promised end, for eight of ten promises to be kept: the schedule adds to what is
calculated. With 0.8, 77 % of 760 simulated runs were."""
HELPED_VMS = 3
"""VMs that end last, for which is asked what would help."""
ALONE = 0.9
"""Of the expected end: a copy that takes longer by itself decides it, not its host's link."""
GIB, MIB = 1 << 30, 1 << 20
WORTH = 0.02
"""Of the promise: less help is not mentioned."""


def promise(moves: Sequence[Planned], paces: Paces) -> tuple[Promise, list[Job]]:
    """The promise, and the moves as they are expected to run."""
    budgets = Budgets(paces)
    expected, played = play(moves, budgets, paces)
    made = Promise(
        expected_s=round(expected, 1),
        promised_s=round(end_with(PROBABILITY, played, expected, paces), 1) if played else 0.0,
        waits_for=_waits_for(played, expected, paces, budgets),
        helps=_helps(moves, played, expected, paces),
    )
    return made, played


def _waits_for(jobs: Sequence[Job], expected: float, paces: Paces, budgets: Budgets) -> str:
    """The move that ends last, or what it shares that is busiest until then."""
    last = max(jobs, key=lambda job: job.end_s, default=None)
    if last is None:
        return ""
    vm, host = paces.tables.vms[last.v], paces.tables.hosts[last.source]
    if paces.alone_s(last.v, last.cap) >= ALONE * expected:
        dirties = f", and it writes {paces.dirty[last.v] / MIB:.0f} MiB/s"
        return f"{vm.name} ends last: {last.size / GIB:.1f} GiB are copied from {host.name}{dirties}"
    load = {budget: [job.size for job in jobs if budget in job.budgets] for budget in last.budgets}
    busiest = max(load, key=lambda budget: (sum(load[budget]) / budgets.room[budget], -budget))
    size, rate = sum(load[busiest]) / GIB, budgets.room[busiest] / MIB
    return f"{budgets.names[busiest]} is the bottleneck: {size:.1f} GiB at {rate:.0f} MiB/s; {vm.name} ends last"


def _helps(moves: Sequence[Planned], jobs: Sequence[Job], expected: float, paces: Paces) -> tuple[Help, ...]:
    """Whether permission for post-copy for one of the last VMs would end all sooner, and by how much."""
    if paces.floor >= TWICE:
        return ()
    last = sorted(jobs, key=lambda job: -job.end_s)[:HELPED_VMS]
    found = []
    for job in last:
        if paces.dirty[job.v] <= TWICE * job.cap:
            continue
        before, paces.dirty[job.v] = paces.dirty[job.v], TWICE * job.cap
        sooner, _ = play(moves, Budgets(paces), paces)
        paces.dirty[job.v] = before
        gain = expected - sooner
        if gain > WORTH * expected:
            sentence = f"post-copy for {paces.tables.vms[job.v].name}: {gain:.0f} s sooner"
            found.append(Help(sentence=sentence, gain_s=round(gain, 1)))
    return tuple(sorted(found, key=lambda one: -one.gain_s))
