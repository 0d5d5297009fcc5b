"""How much each sender has under way here, and how often it sends: counted, for the limits of
`domain/trust/bounds.py`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sterna.domain.errors import Temporary
from sterna.domain.trust.bounds import Budget, Load, Pace, no_place
from sterna.ports.clock import Clock

_MOST_SENDERS = 10_000
"""The least recent sender is forgotten first: on a bus without certificates anybody may invent names."""


class ActiveRequests:
    """Requests that are being handled: how many of each sender, and how large."""

    def __init__(self) -> None:
        self._of: dict[str, Load] = {}
        self._all = Load()

    @contextmanager
    def taken(self, sender: str, size: int) -> Iterator[str]:
        """Count one request while the block lasts. Yields why it must be refused; '' if it is within the limits."""
        why = no_place(sender, self._of.get(sender, Load()), self._all)
        if why:
            yield why
            return
        self._of[sender] = self._of.get(sender, Load()).plus(size)
        self._all = self._all.plus(size)
        try:
            yield ""
        finally:
            self._all = self._all.minus(size)
            left = self._of.pop(sender).minus(size)
            if left.number:
                self._of[sender] = left


class SenderRates:
    """How often each sender has sent lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: OrderedDict[str, Budget] = OrderedDict()

    def admits(self, sender: str, pace: Pace) -> bool:
        """Count one more message of this sender: is it within the pace?"""
        now_ms = self._clock.monotonic_ms()
        before = self._left.pop(sender, None) or Budget.full(pace, now_ms)
        after = before.spent(pace, now_ms)
        self._left[sender] = after or before
        while len(self._left) > _MOST_SENDERS:
            self._left.popitem(last=False)
        return after is not None


class SenderTurns:
    """So many of each sender are worked on at once; its next ones wait."""

    def __init__(self, at_once: int, limit_s: float) -> None:
        self._at_once, self._limit_s = at_once, limit_s
        self._of: dict[str, tuple[asyncio.Semaphore, int]] = {}
        """With how many work or wait."""

    @asynccontextmanager
    async def of(self, sender: str) -> AsyncIterator[None]:
        """One turn. Raises Temporary where it does not come in time."""
        turn, number = self._of.get(sender, (asyncio.Semaphore(self._at_once), 0))
        self._of[sender] = turn, number + 1
        try:
            try:
                async with asyncio.timeout(self._limit_s):
                    await turn.acquire()
            except TimeoutError as error:
                why = f"this host works on {self._at_once} checks of {sender} already"
                raise Temporary(why, fix="try again; find out what does not answer there") from error
            try:
                yield
            finally:
                turn.release()
        finally:
            turn, number = self._of.pop(sender)
            if number > 1:
                self._of[sender] = turn, number - 1


class QueuedCasts:
    """Casts in the inbox or the outbox: how many of each host, and how large."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[str, int]] = {}
        self._of: dict[str, Load] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def load(self, host: str) -> Load:
        """What waits of this host."""
        return self._of.get(host, Load())

    def add(self, id: str, host: str, size: int) -> None:
        """One more; the same again changes nothing."""
        if id not in self._sizes:
            self._sizes[id] = host, size
            self._of[host] = self.load(host).plus(size)

    def done(self, id: str) -> None:
        """One less, if it was there."""
        host, size = self._sizes.pop(id, ("", 0))
        if host and host in self._of:
            left = self._of.pop(host).minus(size)
            if left.number:
                self._of[host] = left
