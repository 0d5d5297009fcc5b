"""The choice of a host: those with the most free memory are asked first, by way of the VM's source.

Only the first is asked; where it does not want the VM, the next two, then four. A host that does not answer soon is
left to answer later, and others are asked. What the source itself cannot do, no other host will change.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sterna.controller import reasons
from sterna.domain.model import Refusal
from sterna.ports.fleet import VmRecord

Verdict = Callable[[str], Awaitable[list[Refusal]]]
"""What speaks against a host, as the source's agent says."""

SOON_S = 5.0
"""A check takes a second or two. After so long the next hosts are asked as well."""
CHOOSE_S = 55.0
"""All of a choice. A bit less than one check may take (`CHECK_LONGEST_S`)."""
MOST_ASKED = 64
"""Hosts at once, whether they would take a VM."""
MOST_UNHEARD = 7
"""Hosts at once before the first answer. Perhaps it is the source that hangs, and each check is one more call to
the guest's QEMU."""
MOST_NAMED = 10
"""Hosts in one message."""


@dataclass
class Choice:
    """What came of it."""

    host: str | None = None
    """The one that takes the VM."""
    against: dict[str, list[Refusal]] = field(default_factory=dict)
    """By host: its reasons."""
    source: list[Refusal] = field(default_factory=list)
    """Why the source cannot be asked about any host."""
    silent: list[str] = field(default_factory=list)
    """Hosts that were asked about, without an answer in time."""
    unasked: list[str] = field(default_factory=list)


async def choose(hosts: Sequence[str], verdict: Verdict) -> Choice:
    """`hosts`: the best one first. Raises what `verdict` raises."""
    asked: dict[str, asyncio.Task[list[Refusal]]] = {}
    try:
        with contextlib.suppress(TimeoutError):  # what is known by then is what is said
            async with asyncio.timeout(CHOOSE_S):
                while not _decided(_choice(hosts, asked)):
                    new = {host: asyncio.ensure_future(verdict(host)) for host in _next(hosts, asked)}
                    asked |= new
                    when = asyncio.ALL_COMPLETED if new else asyncio.FIRST_COMPLETED
                    waiting = list(new.values()) or [task for task in asked.values() if not task.done()]
                    await asyncio.wait(waiting, timeout=SOON_S, return_when=when)
        return _choice(hosts, asked)
    finally:
        for task in asked.values():
            task.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)


def _choice(hosts: Sequence[str], asked: Mapping[str, asyncio.Task[list[Refusal]]]) -> Choice:
    """As it stands. Raises what one of them raised."""
    choice = Choice(unasked=[host for host in hosts if host not in asked])
    for host, task in asked.items():
        if not task.done():
            choice.silent.append(host)
            continue
        found = task.result()
        choice.source = choice.source or [r for r in found if r.code == reasons.SOURCE_DOWN]
        choice.against[host] = found
        if not found and choice.host is None:
            choice.host = host
    return choice


def _decided(choice: Choice) -> bool:
    return choice.host is not None or bool(choice.source) or not (choice.silent or choice.unasked)


def _next(hosts: Sequence[str], asked: Mapping[str, asyncio.Task[list[Refusal]]]) -> Sequence[str]:
    waiting = sum(not task.done() for task in asked.values())
    most = MOST_ASKED if waiting < len(asked) else MOST_UNHEARD
    return hosts[len(asked) : 2 * len(asked) + 1][: max(0, most - waiting)]


def refusals(vm: VmRecord, choice: Choice, unusable: Mapping[str, list[Refusal]]) -> list[Refusal]:
    """Where no host was found: each one's reasons. `unusable`: hosts that were not asked about at all."""
    answered = {host: [r for r in found if r.code != reasons.SOURCE_DOWN] for host, found in choice.against.items()}
    known = dict(sorted({**unusable, **{host: found for host, found in answered.items() if found}}.items()))
    unknown = [] if choice.source else _unknown(vm, choice)
    return reasons.unique([*choice.source, *_by_host(known, alone=not (choice.source or unknown)), *unknown])


def _unknown(vm: VmRecord, choice: Choice) -> list[Refusal]:
    """About hosts without an answer."""
    if choice.silent and not choice.against:
        return [reasons.source_slow(vm.name, vm.host, _some(choice.silent), CHOOSE_S)]
    found = [reasons.hosts_slow(vm.name, _some(choice.silent), CHOOSE_S)] if choice.silent else []
    return found + ([reasons.hosts_unasked(vm.name, _some(choice.unasked), CHOOSE_S)] if choice.unasked else [])


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _by_host(verdicts: Mapping[str, list[Refusal]], *, alone: bool) -> list[Refusal]:
    """Each host's reasons with its name; a reason every host gave (the VM is paused) only once. `alone`: there are
    no others, so that what a single one says is what every host says."""
    if not verdicts:
        return []
    everywhere = set.intersection(*({(r.code, r.message) for r in v} for v in verdicts.values()))
    if len(verdicts) == 1 and not alone:
        everywhere = set()
    first = next(iter(verdicts.values()))
    common = [r for r in first if (r.code, r.message) in everywhere]
    own = [
        r if _names(r.message, host) else r.model_copy(update={"message": f"{host}: {r.message}"})
        for host, verdict in verdicts.items()
        for r in verdict
        if (r.code, r.message) not in everywhere
    ]
    return [*common, *own]


def _names(message: str, host: str) -> bool:
    """`node1` is not in `node10 is down`."""
    return re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", message) is not None
