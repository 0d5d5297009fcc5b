"""Looks at what a VM's definition names, each in a thread of its own.

So a path on a dead file system, or a name that is not resolved, delays no other look, and no call to libvirt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sterna.domain.errors import Temporary
from sterna.domain.references import ADDRESSES, PATHS, Reference, apart
from sterna.kit.mounts import on_disk
from sterna.kit.threads import in_thread

LOOK_S = 20.0
"""A look takes microseconds, to compare a large file some seconds. Both hosts' looks fit into one check (60 s)."""

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
    done = await asyncio.gather(*(_in_thread(group, look) for group in groups), return_exceptions=True)
    return list(zip(groups, done, strict=True))


async def _in_thread(together: Together, look: Callable[[Together], T]) -> T:
    first = together[0]
    if first.kind in PATHS and not first.silent:
        paths = dict.fromkeys(path for ref in together for path in (ref.name, ref.unless) if path)
        return await on_disk(lambda: look(together), *paths, limit_s=LOOK_S)
    name = first.name if first.kind in ADDRESSES else ""
    try:
        return await in_thread(lambda: look(together), name="sterna-look", of=name, limit_s=LOOK_S)
    except TimeoutError as error:
        fix = "see that this host can resolve its name (`getent ahosts`)"
        raise Temporary(f"{first.where}: looking for {first.name}: {error}", fix=fix) from error
