"""Which VMs a host has, reported as changes, and which host a VM belongs to when several report it. Pure.

An agent numbers its changes since its start. A controller that has taken change 7 can take change 8. If it has
missed one, it asks for the whole list. A digest of the list shows whether agent and controller have the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from sterna.domain.hosts import VmSummary
from sterna.domain.model import GuestState, Value

MOST_VMS = 10_000
"""Of one host, at most."""
MOST_CHANGES = 500
"""In one message; where more has changed, the whole list is asked for."""


class Mark(Value):
    """How far a host's list has been reported."""

    boot: str
    """Random ID, a new one at each start of the agent."""
    seq: int
    """Number of the last change, from 1."""
    digest: str
    """Of the whole list after that change."""


class News(Value):
    """A host's report of its VMs: the whole list, or what has changed since `mark.seq - 1`."""

    mark: Mark | None = None
    """None: from an agent of a version that does not number its changes."""
    whole: bool
    seen: tuple[VmSummary, ...] = ()
    gone: tuple[str, ...] = ()
    """UUIDs. Empty where it is the whole."""


def text_of(vms: Iterable[VmSummary]) -> str:
    """A text that is equal for equal lists, in whatever order. It has only what every version knows of a VM. Agents
    and controllers compare its digest."""
    return "\n".join(sorted(f"{v.uuid} {v.state} {v.memory_bytes} {v.vcpus} {v.name!r}" for v in vms))


def fits(news: News, known: Mark | None) -> Literal["take", "known", "gap"]:
    """Can a controller that knows the host's list up to `known` take `news`?"""
    new = news.mark
    if new is None:
        return "take"
    same_life = known is not None and known.boot == new.boot
    if news.whole:
        return "known" if same_life and known is not None and new.seq < known.seq else "take"
    if known is None or not same_life:
        return "gap"
    if new.seq <= known.seq:
        return "known"
    return "take" if new.seq == known.seq + 1 else "gap"


def home_of(
    home: str | None, seen: Mapping[str, GuestState], *, reporter: str = "", migrates: bool = False
) -> str | None:
    """The host that a VM belongs to; None if no host has it any more.

    `home`: where it was. `seen`: what each host reports of it. `reporter`: the host that has reported just now. If
    two hosts report that it runs there, the newer report counts. While it migrates, only its journals decide.
    """
    if migrates and home is not None:
        return home
    running = [host for host, state in seen.items() if state is GuestState.RUNNING]
    for host in (reporter, home):
        if host in running:
            return host
    if running:
        return min(running)
    if home in seen:
        return home
    return min(seen, default=None)


def runs_also(home: str | None, seen: Mapping[str, GuestState]) -> tuple[str, ...]:
    """Other hosts that report that it runs there, while its home reports that as well."""
    running = {host for host, state in seen.items() if state is GuestState.RUNNING}
    return tuple(sorted(running - {home})) if home in running else ()


def confirmed(also: Collection[str], before: Collection[str], asked: Collection[str]) -> tuple[str, ...]:
    """Those of `also` that count. A VM that has just moved seems to run twice until its source has reported that it
    is gone. So only a host counts that reported it before, or has been asked again since."""
    return tuple(sorted(host for host in also if host in before or host in asked))
