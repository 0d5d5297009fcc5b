"""What operations make happen: their migrations begin, and are aborted. Each at most once at a time.

A migration's id follows from its attempt, so beginning it twice is beginning it once, from whichever controller.
The attempt was written before. How that ended is written after; where it is not, the next look begins it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from sterna.domain.errors import Cancelled, Conflict, NotFound, Permanent, Refused, SternaError
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, blame_of
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.operations import OperationRecord

log = structlog.get_logger(__name__)

MOST_TRIES = 5
"""Times that an attempt is asked for in vain. Then it is given up: it would keep its slots. Its VM rests a while,
and is planned again."""
AGAIN_MS = 1_500.0
"""The same is not asked for again sooner, however often the operation is looked at. Less than the interval of looks
(`carrying_out.LOOK_S`), so that each of these may ask."""
Begin = Callable[[OperationRecord, Attempt], Awaitable[object]]
Abort = Callable[[str], Awaitable[object]]


class Acting:
    """One controller's acts that have not ended."""

    def __init__(self, fleet: Fleet, begin: Begin, abort: Abort, clock: Clock) -> None:
        """`begin` asks for an attempt's migration, `abort` for the end of one. They raise as Controller does."""
        self._fleet, self._ask, self._abort, self._clock = fleet, begin, abort, clock
        self.on_given_up: Callable[[str], None] = lambda operation: None
        """Called with an operation of which an attempt has ended before it began."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked_at: dict[tuple[str, str], float] = {}
        """What was asked for a short while ago, and when that was (monotonic ms), oldest first."""
        self.trouble: dict[str, str] = {}
        """Migration -> why it could not be begun when that was last tried."""
        self._tries: Counter[str] = Counter()
        """Migration -> how often that was tried in vain."""

    def busy(self, migration: str) -> bool:
        """Is something done about it at the moment?"""
        return migration in self._tasks

    def begin(self, operation: OperationRecord, attempt: Attempt) -> None:
        """Ask for its migration."""
        self._do("begin", attempt.migration, self._begin(operation, attempt))

    def abort(self, migration: str) -> None:
        """Ask for its end. One that is past its pivot goes on."""
        self._do("abort", migration, self._end(migration))

    def _do(self, what: str, migration: str, act: Coroutine[None, None, None]) -> None:
        now_ms = self._clock.monotonic_ms()
        while self._asked_at and now_ms - next(iter(self._asked_at.values())) >= AGAIN_MS:
            del self._asked_at[next(iter(self._asked_at))]
        if migration in self._tasks or (what, migration) in self._asked_at:
            act.close()
            return
        self._asked_at[what, migration] = now_ms
        task = asyncio.create_task(_quietly(act, migration), name=f"operation-{migration}")
        self._tasks[migration] = task
        task.add_done_callback(lambda _: self._tasks.pop(migration, None))

    async def _begin(self, operation: OperationRecord, attempt: Attempt) -> None:
        state, blame, reason = AttemptState.STARTED, Blame.NOBODY, ""
        try:
            await self._ask(operation, attempt)
        except Refused as error:
            state, blame, reason = AttemptState.REFUSED, blame_of(error.refusals), error.message
        except NotFound as error:
            state, blame, reason = AttemptState.REFUSED, Blame.VM, error.message
        except (Conflict, Cancelled) as error:  # somebody else was faster
            state, reason = AttemptState.REFUSED, error.message
        except Permanent as error:
            state, blame, reason = AttemptState.FAILED, Blame.HOST, error.message
        except SternaError as error:
            self.trouble[attempt.migration] = error.message
            self._tries[attempt.migration] += 1
            if self._tries[attempt.migration] < MOST_TRIES:
                raise
            state, reason = AttemptState.REFUSED, error.message
        at = self._clock.now().isoformat()
        await self._fleet.settle_attempt(attempt, operation.epoch, state, reason=reason, blame=blame, at=at)
        self.forget(attempt.migration)
        if state.ended:
            self.on_given_up(operation.id)

    def forget(self, migration: str) -> None:
        """It has begun, or will not be begun any more."""
        self.trouble.pop(migration, None)
        self._tries.pop(migration, None)

    async def _end(self, migration: str) -> None:
        try:
            await self._abort(migration)
        except (Conflict, NotFound) as error:
            log.debug("a migration is not aborted", migration=migration, why=error.message)

    async def drained(self) -> None:
        """Wait until nothing is done any more. For tests."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def stop(self) -> None:
        """Wait for nothing any more. What hosts were asked for goes on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quietly(act: Coroutine[None, None, None], migration: str) -> None:
    try:
        with own_cancellation_only():
            await act
    except SternaError as error:
        log.info("what an operation wants is tried again", migration=migration, why=error.message)
    except Exception:
        log.exception("what an operation wants could not be done", migration=migration)
