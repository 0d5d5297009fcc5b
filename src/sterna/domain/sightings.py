"""Which VMs a host has, told by changes, and where a VM is at home when several hosts name it. Pure.

An agent counts its changes. Who has taken change 7 of this life of the agent knows what it needs to take change 8,
and asks for the whole list where it does not. The digest of the list tells whether both have the same.
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
    """Up to where a host's list has been told."""

    boot: str
    """Random ID of the agent's life."""
    seq: int
    """Of its changes, from 1."""
    digest: str
    """Of the whole list then."""


class News(Value):
    """What a host says of its VMs: the whole list, or what has changed since `mark.seq - 1`."""

    mark: Mark | None = None
    """None: from an agent that does not count."""
    whole: bool
    seen: tuple[VmSummary, ...] = ()
    gone: tuple[str, ...] = ()
    """UUIDs. Empty where it is the whole."""


def text_of(vms: Iterable[VmSummary]) -> str:
    """What tells this list from another one, in whatever order: by what every version knows of a VM. Agents and
    controllers compare its digest."""
    return "\n".join(sorted(f"{v.uuid} {v.state} {v.memory_bytes} {v.vcpus} {v.name!r}" for v in vms))


def fits(news: News, known: Mark | None) -> Literal["take", "known", "gap"]:
    """Can `news` be taken by who knows the host's list up to `known`?"""
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
    home: str | None, seen: Mapping[str, GuestState], *, told: str = "", migrates: bool = False
) -> str | None:
    """The host where a VM is; None where nobody has it any more.

    `home`: where it was. `seen`: what each host says of it. `told`: who has said so just now: where two hosts say
    that it runs there, the newer word counts. While it migrates, only its journals say where it is.
    """
    if migrates and home is not None:
        return home
    running = [host for host, state in seen.items() if state is GuestState.RUNNING]
    for host in (told, home):
        if host in running:
            return host
    if running:
        return min(running)
    if home in seen:
        return home
    return min(seen, default=None)


def runs_also(home: str | None, seen: Mapping[str, GuestState]) -> tuple[str, ...]:
    """Other hosts that say that it runs there, while its home says so too."""
    running = {host for host, state in seen.items() if state is GuestState.RUNNING}
    return tuple(sorted(running - {home})) if home in running else ()


def confirmed(also: Collection[str], before: Collection[str], asked: Collection[str]) -> tuple[str, ...]:
    """Those of `also` that count: a VM that has just moved seems to run twice until its source has said that it is
    gone. So a host counts that did before, or has been asked again since."""
    return tuple(sorted(host for host in also if host in before or host in asked))
