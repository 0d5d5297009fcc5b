"""An abort that is checked between the parts of a piece of work.

The event of the abort is in a context variable, which tasks that are begun inside inherit. So an adapter that asks
a service ten times needs to know no migration. It serves checks as well, which are not aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from sterna.domain.errors import Cancelled

T = TypeVar("T")

_ABORTED: ContextVar[asyncio.Event | None] = ContextVar("aborted", default=None)


@contextmanager
def abortable_by(aborted: asyncio.Event | None) -> Iterator[None]:
    """The work inside ends at its next check once this event is set. None: it goes on to its end."""
    before = _ABORTED.set(aborted)
    try:
        yield
    finally:
        _ABORTED.reset(before)


def raise_if_aborted() -> None:
    """Check before the next part is begun. Raises Cancelled once the work was aborted."""
    aborted = _ABORTED.get()
    if aborted is not None and aborted.is_set():
        raise Cancelled("aborted on request")


async def unless_aborted(work: Coroutine[Any, Any, T], by: asyncio.Event | None = None) -> T:
    """The result of `work`, which is cancelled at an abort: it must only read, or be undone elsewhere. `by`: the
    event of the abort; else the one that `abortable_by` was given. Raises Cancelled.
    """
    aborted = _ABORTED.get() if by is None else by
    if aborted is None:
        return await work
    doing, abort = asyncio.ensure_future(work), asyncio.ensure_future(aborted.wait())
    try:
        await asyncio.wait((doing, abort), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Cancelled("aborted on request")
        return doing.result()
    finally:
        doing.cancel()
        abort.cancel()
        await asyncio.gather(doing, abort, return_exceptions=True)
