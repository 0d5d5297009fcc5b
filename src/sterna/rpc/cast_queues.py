"""Casts in order of arrival within one migration, migrations side by side, each tried until it is done.

A cast that can never be done is set aside: it stays in the inbox, is tried again when the agent is restarted, and
does not block those behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from sterna.domain.errors import BadRequest, Conflict, SternaError, Temporary
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import Backoff
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope

_FIRST_S = 0.2
_LONGEST_S = 10.0
"""Longest pause between two tries of a cast whose handler fails."""

_MOST_TRIES = 20
"""Tries, over some two minutes, of a cast that fails by a bug or contradicts the journal. A cast that waits for
something (Temporary, Unknown, a libvirt that refuses) is tried for as long as it takes."""

_log = structlog.get_logger()


class CastQueues:
    """One queue and one worker per migration. The server adds casts. If `handle` raises, it is called again later.

    `set_aside` is called with what will not be tried again in this life, and why."""

    def __init__(
        self,
        handle: Callable[[Envelope], Awaitable[None]],
        clock: Clock,
        set_aside: Callable[[Envelope, str], None],
    ) -> None:
        self._handle = handle
        self._set_aside = set_aside
        self._clock = clock
        self._waiting: dict[str, deque[Envelope]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}

    def add(self, envelope: Envelope) -> None:
        """Handle it after those of its migration that came before."""
        key = envelope.migration_id
        self._waiting.setdefault(key, deque()).append(envelope)
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key), name=f"casts of {key}")

    async def stop(self) -> None:
        """Cancel what is being handled; it stays in the inbox."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._workers.clear()
        self._waiting.clear()

    async def _work(self, key: str) -> None:
        queue = self._waiting[key]
        while queue:
            await self._until_done(queue[0])
            queue.popleft()
        # no await since the queue was seen empty, so that `add` cannot fall into the gap
        del self._waiting[key], self._workers[key]

    async def _until_done(self, envelope: Envelope) -> None:
        backoff, tries = Backoff(_FIRST_S, _LONGEST_S), 0
        while True:
            try:
                with own_cancellation_only():
                    await self._handle(envelope)
                return
            except Exception as e:
                tries += 1
                if _is_hopeless(e, tries):
                    self._set_aside(envelope, e.message if isinstance(e, SternaError) else repr(e))
                    return
                wait = max(backoff.seconds, e.delay_s or 0) if isinstance(e, Temporary) else backoff.seconds
                wait = min(wait, _LONGEST_S)
                _log.warning(
                    "a cast failed and will be tried again",
                    method=envelope.method,
                    migration_id=envelope.migration_id,
                    retry_s=wait,
                    error=repr(e),
                    exc_info=backoff.first and not isinstance(e, Temporary),  # the first time is enough
                )
            await self._clock.sleep(wait)
            backoff.grow()


def _is_hopeless(error: Exception, tries: int) -> bool:
    if isinstance(error, BadRequest):
        return True
    by_mistake = isinstance(error, Conflict) or not isinstance(error, SternaError)
    return by_mistake and tries >= _MOST_TRIES
