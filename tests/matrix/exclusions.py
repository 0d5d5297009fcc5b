"""The cases that are known and left out, each with its reason: the only place where that may be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.matrix.cases import moments
from tests.matrix.play import Case, Result

WITNESS = {
    "ended-unseen": ("host2", "guest-ran-here"),
    "ended-unseen-by-the-next-life": ("host2", "guest-ran-here"),
    "handed-over-unseen": ("host1", "saw-stopped-migrated"),
    "switched-and-destination-lost": ("host2", "guest-ran-here"),
}
"""In these scripts one agent alone sees that the guest runs on its new host: who, and what it writes then."""
UNWATCHED = ("turned-while-copying", "copied-without-agents", "handed-over-unseen")
"""In these scripts the new host's agent is dead at the switch-over."""


class Exclusion(NamedTuple):
    """What is left out, and why."""

    covers: Callable[[Case], bool]
    reason: str


def _strikes(case: Case, fault: str, *moments: str) -> bool:
    return any(f == fault and any(m in key for m in moments) for key, f in case.faults)


def _power_cut_at_the_switch_over(case: Case) -> bool:
    if case.script.startswith("switched"):  # a guest in post-copy is seen to run by its source, too
        return _strikes(case, "power-host2-30s", "host2 domain defined")
    return _strikes(
        case,
        "power-host2-30s",
        "host2 domain defined",
        "host2 domain running (migrated)",
        "job finished",
        "host1 domain paused (api-error)",  # the instant after: libvirt tried to let the old copy run on
    )


def _witness_died(case: Case) -> bool:
    """The one agent that could have said that the guest ran died before it had written so."""
    host, note = WITNESS.get(case.script, ("", ""))
    if not host or not case.kind.endswith("transient") or not case.faults:
        return False
    keys = [m.key for m in moments(case.kind, case.script)]
    written = next((i for i, key in enumerate(keys) if f"{host}: journal note:{note} after" in key), len(keys))
    kills = ("kill", f"power-{host}", "hang")
    mine = [(key, fault) for key, fault in case.faults if key in keys and _hits(host, key, fault)]
    return any(fault.startswith(kills) and keys.index(key) < written for key, fault in mine)


def _hits(host: str, key: str, fault: str) -> bool:
    """Is it that host's agent which a death at this moment kills?"""
    return key.startswith(f"{host}:") or fault.startswith("kill-both")


EXCLUDED = (
    Exclusion(
        _witness_died,
        "a transient guest leaves no definition: it ran on its new host and ended there while one of the two "
        "agents was dead, and the other died before it had written what it saw; nobody can know",
    ),
    Exclusion(
        lambda c: (
            c.kind.endswith("transient")
            and any(f == "power-host2-30s" for _, f in c.faults)
            and any(f.startswith(("kill", "hang", "link", "libvirtd")) for _, f in c.faults)
        ),
        "the same with the new host's power: it ended there before any agent alive had seen it run",
    ),
    Exclusion(
        lambda c: (
            _strikes(c, "power-host1-30s", "host2 domain defined")
            and any(f.startswith(("libvirtd-host2", "power-host2")) for _, f in c.faults)
        ),
        "the old host loses power in the instant between the definition on the new host and its first instruction, "
        "and the new host's libvirt then forgets; the guest ended, and its disks are the same on both sides",
    ),
    Exclusion(
        lambda c: c.script in UNWATCHED and _strikes(c, "qemu-host2", "host2 domain defined"),
        "the new host's QEMU dies in the instant between the definition there and the guest's first instruction, "
        "while no agent there listens: nobody knows that it never ran, so the source's old copy is not set "
        "running; the guest ended, and its disks are the same on both sides",
    ),
    Exclusion(
        lambda c: (
            ("unseen" in c.script or c.script == "lost-finish")
            and _strikes(c, "power-host2-30s", "Lost connection")
        ),
        "the new host loses power in the same instant in which the guest ended there and the source lost its "
        "libvirt: the same doubt as below",
    ),
    Exclusion(
        lambda c: (
            c.kind == "postcopy-transient"
            and _strikes(c, "power-host2-30s", "running (postcopy) #1", "(postcopy-failed) #1", "in post-copy")
        ),
        "a transient guest lost in the instant in which post-copy began leaves nothing on either side; it is "
        "recorded as ended on the source",
    ),
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


def not_held(result: Result) -> str:
    """What is wrong with how a doubt was met: it must be held, said, and nothing touched. '' if nothing is."""
    if len(result.problems) != 1 or not result.problems[0].startswith("NEVER SETTLED: host1: source of "):
        return str(result.problems or "it came to an end")
    if result.statuses["host1"] != "error":
        return f"the journal says {result.statuses['host1']}"
    touched = [line for line in result.story if any(w in line for w in ("destroyed", "unpaused", "undefined"))]
    return str(touched) if touched else ""


FORGETFUL = ("power-host2-30s", "libvirtd-host2-4s", "libvirtd-host2-60s")
"""Faults after which the new host's libvirt no longer knows how a guest came to its end."""


def held(result: Result) -> bool:
    """Two faults left a doubt, one of them by making libvirt forget; and it was held as it must be."""
    return any(fault in FORGETFUL for _, fault in result.case.faults) and not not_held(result)
