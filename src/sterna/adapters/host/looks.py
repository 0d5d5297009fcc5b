"""Looks at what a VM's definition names, each in a thread of its own.

So a path on a dead file system, or a name that is not resolved, delays no other look, and no call to libvirt.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sterna.domain.errors import Temporary
from sterna.domain.references import ADDRESSES, PATHS, Reference, apart
from sterna.kit.mounts import by_mount, on_disk
from sterna.kit.threads import in_thread

LOOK_S = 20.0
"""A look takes microseconds, to compare a large file some seconds. Both hosts' looks fit into one check (60 s)."""
_AT_ONCE = 8
"""Looks of one check at one file system, or at addresses: the definition comes from another host, and may name very
many. A look at a healthy one takes microseconds."""

T = TypeVar("T")
Together = Sequence[Reference]
"""References to one path or address, or to what never hangs."""


async def at_each(references: Iterable[Reference], look: Callable[[Together], T]) -> list[T]:
    """`look`'s answers. Raises Temporary, with its name, where one of them hangs; once no other is waited for."""
    answers = await _answers(references, look)
    for _, answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for _, answer in answers]  # type: ignore[misc]  # no exception is left among them


async def at_those_that_answer(
    references: Iterable[Reference], look: Callable[[Together], T]
) -> list[tuple[Together, T | None]]:
    """`look`'s answers, each with what it looked at; None of what hangs. Raises what else a look raises."""
    found: list[tuple[Together, T | None]] = []
    for together, answer in await _answers(references, look):
        if isinstance(answer, BaseException) and not isinstance(answer, Temporary):
            raise answer
        found.append((together, None if isinstance(answer, BaseException) else answer))
    return found


async def _answers(
    references: Iterable[Reference], look: Callable[[Together], T]
) -> list[tuple[Together, T | BaseException]]:
    groups = apart(references)
    places = {path: mount.device for mount, paths in by_mount(_paths(groups)).items() for path in paths}
    turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
    until = time.monotonic() + LOOK_S
    looking = [_in_turn(turns[places.get(group[0].name, "")], group, look, until) for group in groups]
    done = await asyncio.gather(*looking, return_exceptions=True)
    return list(zip(groups, done, strict=True))


def _paths(groups: Iterable[Together]) -> list[str]:
    return [group[0].name for group in groups if _is_path(group[0])]


def _is_path(ref: Reference) -> bool:
    return ref.kind in PATHS and not ref.silent


async def _in_turn(turn: asyncio.Semaphore, group: Together, look: Callable[[Together], T], until: float) -> T:
    """All together have LOOK_S: what comes late has had to wait for others that hang, and gets the rest of it."""
    try:
        async with asyncio.timeout(until - time.monotonic()):
            await turn.acquire()
    except TimeoutError as error:
        first = group[0]
        message = f"{first.where}: {first.name} was not looked for: {_AT_ONCE} looks before it had no answer"
        raise Temporary(message, fix="find out which other things of the VM do not answer") from error
    try:
        return await _in_thread(group, look, until - time.monotonic())
    finally:
        turn.release()


async def _in_thread(together: Together, look: Callable[[Together], T], limit_s: float) -> T:
    first = together[0]
    if _is_path(first):
        paths = dict.fromkeys(path for ref in together for path in (ref.name, ref.unless) if path)
        return await on_disk(lambda: look(together), *paths, limit_s=limit_s)
    name = first.name if first.kind in ADDRESSES else ""
    try:
        return await in_thread(lambda: look(together), name="sterna-look", of=name, limit_s=limit_s)
    except TimeoutError as error:
        fix = "check that this host can resolve its name (`getent ahosts`)"
        raise Temporary(f"{first.where}: looking for {first.name}: {error}", fix=fix) from error
