"""The cases that are known and left out, each with its reason: the only place where that may be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.matrix.play import Case


class Exclusion(NamedTuple):
    """What is left out, and why."""

    covers: Callable[[Case], bool]
    reason: str


def _strikes(case: Case, fault: str, *moments: str) -> bool:
    return any(f == fault and any(m in key for m in moments) for key, f in case.faults)


def _power_cut_at_the_switch_over(case: Case) -> bool:
    return _strikes(
        case, "power-host2-30s", "host2 domain defined", "host2 domain running (migrated)", "job finished"
    )


EXCLUDED = (
    Exclusion(
        lambda c: c.kind == "transient" and _power_cut_at_the_switch_over(c),
        "a transient guest leaves no definition: when its new host loses power in the instant after the "
        "switch-over, before the agent there has written that it ran, no process can know that it did; the "
        "source's paused copy is set running again",
    ),
    Exclusion(
        _power_cut_at_the_switch_over,
        "the new host loses power in the instant of the switch-over and its libvirt no longer knows whether the "
        "guest ran there: a doubt. Sterna holds both sides, says so (`error`), and a person decides; that it does "
        "so is `test_in_doubt_it_holds_and_says_so`",
    ),
)
IN_DOUBT = [
    Case(kind, "forward", ((moment, "power-host2-30s"),))
    for kind in ("full", "shared", "plain")
    for moment in (
        "world: host2 domain defined #1",
        "world: host2 domain running (migrated) #1",
        "world: host1 job finished #1",
    )
]


def why_not(case: Case) -> str:
    """Why this case is left out; '' for one that is played."""
    return next((e.reason for e in EXCLUDED if e.covers(case)), "")
