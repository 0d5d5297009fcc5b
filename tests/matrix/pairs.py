"""All pairs of faults: after each single fault, each other one, once for each state of everything that lasts.

Two firsts that leave the world, the journals and the processes alike, with an agent at the same point, go on alike:
one of them stands for both (state.py says what "alike" is).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.matrix.cases import deaths, family, faults_for, others
from tests.matrix.exclusions import why_not
from tests.matrix.moments import Moment
from tests.matrix.play import Case, play

SECOND = frozenset(
    {
        *("permanent", "unknown", "abort", "kill-both-3s", "hang-20s", "bus-away-30s"),
        *("request-lost", "answer-lost", "link-stream-5s", "link-control-5s", "libvirtd-host1-4s"),
        *("libvirtd-host2-4s", "power-host1-30s", "power-host2-30s", "qemu-host1", "qemu-host2"),
    }
)
"""One fault of each sort; how long it lasts is varied in the singles."""

PLAYED = (("full", "forward"), ("transient", "forward"), ("volumes", "forward"), ("postcopy", "switched"))
"""Kinds of guests and scripts: the others differ from these in nothing that two faults could tell."""

Second = tuple[int, str, str]
"""Equal for pairs that go on alike; the second moment's key; its fault."""
_SEEN: set[int] = set()
"""What this process has handed on already."""


def firsts() -> list[Case]:
    """Every single fault of a migration that is otherwise left alone."""
    return [c for played in PLAYED for c in (*deaths(*played), *others(*played)) if not why_not(c)]


def merged(first: Iterable[Case], found: Iterable[tuple[int, list[Second]]]) -> tuple[list[Case], int]:
    """One case for each state and second fault; and how many there were before merging."""
    chosen: dict[int, Case] = {}
    before = 0
    for case, (count, later) in zip(first, found, strict=True):
        before += count
        for alike, key, fault in later:
            chosen.setdefault(alike, Case(case.kind, case.script, (*case.faults, (key, fault))))
    return [case for case in chosen.values() if not why_not(case)], before


def seconds(first: Case) -> tuple[int, list[Second]]:
    """How many second faults there are for this first one, and those this process has not met before."""
    trace = play(first, again=False, states=True).trace
    struck = next((i for i, m in enumerate(trace) if m.key == first.faults[0][0]), len(trace))
    found: dict[int, tuple[str, str]] = {}
    for moment in trace[struck + 1 :]:
        for key, fault in _at(moment):
            found.setdefault(hash((first.kind, first.script, *key)), (moment.key, fault))
    new = [(alike, *second) for alike, second in found.items() if alike not in _SEEN]
    _SEEN.update(found)
    return len(found), new


def _at(moment: Moment) -> Iterator[tuple[tuple[object, ...], str]]:
    if moment.what.startswith("-/"):
        return
    if family(moment) != "world":
        yield (moment.host, moment.state), "kill-3s"  # the other agent's place in its work is taken as equal
    fresh = moment._replace(nth=1)
    for fault in faults_for(fresh):
        if fault in SECOND:
            yield (moment.host, moment.what, moment.state, fault), fault
