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


EXCLUDED = (
    Exclusion(
        lambda c: c.kind == "transient" and _strikes(c, "power-host2-30s", "running (migrated)", "job finished"),
        "a transient guest leaves no definition: when its new host loses power in the instant after the "
        "switch-over, before the agent there has written that it ran, no process can know that it did; the "
        "source's paused copy is set running again",
    ),
    Exclusion(
        lambda c: _strikes(c, "power-host2-30s", "host2 domain defined"),
        "libvirt's Finish writes the definition just before the vCPUs run; when that host loses power in between, "
        "what is left there looks as if the guest had run: it is taken to have ended there, which costs a guest "
        "that stood paused on the source, rather than running one twice",
    ),
)


def why_not(case: Case) -> str:
    """Why this case is left out; '' for one that is played."""
    return next((e.reason for e in EXCLUDED if e.covers(case)), "")
