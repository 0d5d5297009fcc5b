"""An operation is looked at soon after one of its migrations has got further, whichever controller has read so.

Looks come at a fixed interval anyway (`carrying_out.py`). An operation that is woken need not wait for that.
Between two of its looks there is a rest: however many migrations end meanwhile, one look sees all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import structlog

from sterna.domain.errors import SternaError
from sterna.domain.fleet.attempts import Attempt
from sterna.domain.journal import Entry, Kind
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock

log = structlog.get_logger(__name__)

REST_MS = 250.0
"""From the end of a look to the next one, at least."""
RESTS_AS_LONG = 2.0
"""The rest is so many times as long as the look took: what takes long to look at is not looked at all the time."""
MOST_REST_MS = 2_000.0
TURN_S = 2.0
"""A look that is under way is waited for, and then again."""
_TELL = frozenset({Kind.STATUS, Kind.RELEASED, Kind.CLOSED})
"""Entries after which something else may begin."""


class Waking:
    """Of the operations that this controller holds."""

    def __init__(
        self,
        begin: Callable[[str], Awaitable[None]],
        turns: Mapping[str, asyncio.Task[None]],
        clock: Clock,
    ) -> None:
        """`begin` begins a look at an operation, if this controller still holds it. `turns`: the looks that are
        under way, by operation."""
        self._begin, self._turns, self._clock = begin, turns, clock
        self._follows: dict[str, dict[str, frozenset[str]]] = {}
        """Operation -> its migrations that have not ended, with their hosts."""
        self._rests_until: dict[str, float] = {}
        """Monotonic ms."""
        self._due: dict[str, asyncio.Task[None]] = {}
        """Of operations that have been woken, and whose look has not begun."""

    def follow(self, operation: str, attempts: Iterable[Attempt], *, also: bool = False) -> None:
        """These are its attempts that have not ended. `also`: beside those that are known."""
        found = {one.migration: frozenset((one.source, one.target)) for one in attempts if not one.state.ended}
        self._follows[operation] = self._follows.get(operation, {}) | found if also else found

    def taken(self, host: str, entries: Sequence[Entry]) -> None:
        """The records have these entries of a host's journal. None: another controller has taken some."""
        told = {entry.migration_id for entry in entries if entry.kind in _TELL}
        for operation, migrations in self._follows.items():
            concerns = not told.isdisjoint(migrations)
            if concerns or (not entries and any(host in hosts for hosts in migrations.values())):
                self.soon(operation)

    def soon(self, operation: str) -> None:
        """Look at it, after its rest."""
        if operation not in self._due:
            task = asyncio.create_task(self._after_its_rest(operation), name=f"wake-{operation}")
            self._due[operation] = task

    def due(self) -> list[asyncio.Task[None]]:
        """Those that have been woken, and are not looked at yet."""
        return list(self._due.values())

    def looked_at(self, operation: str, began_ms: float) -> None:
        """A look at it has ended."""
        now = self._clock.monotonic_ms()
        rest_ms = min(max(REST_MS, RESTS_AS_LONG * (now - began_ms)), MOST_REST_MS)
        self._rests_until[operation] = now + rest_ms

    def forget(self, unfinished: Collection[str]) -> None:
        """This controller looks at no others."""
        for known in (self._follows, self._rests_until):
            for operation in known.keys() - set(unfinished):
                del known[operation]

    async def stop(self) -> None:
        """Wake none any more."""
        due = self.due()
        for task in due:
            task.cancel()
        await asyncio.gather(*due, return_exceptions=True)
        self._due.clear()

    async def _after_its_rest(self, operation: str) -> None:
        try:
            with own_cancellation_only():
                await self._rest(operation)
                self._due.pop(operation, None)  # what comes from now on may be too late for this look
                await self._begin(operation)
        except SternaError as error:
            log.info("an operation is looked at again later", operation=operation, why=error.message)
        except Exception:
            log.exception("an operation cannot be woken", operation=operation)
        finally:
            if self._due.get(operation) is asyncio.current_task():
                del self._due[operation]

    async def _rest(self, operation: str) -> None:
        """A look that is under way may have begun too early."""
        while True:
            turn = self._turns.get(operation)
            rest_ms = self._rests_until.get(operation, 0.0) - self._clock.monotonic_ms()
            if turn is not None:
                await asyncio.wait({turn}, timeout=TURN_S)
            elif rest_ms > 0:
                await self._clock.sleep(rest_ms / 1000)
            else:
                return
