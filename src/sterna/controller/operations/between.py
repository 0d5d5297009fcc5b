"""What is asked for each empty host of a rolling operation: its webhook is called, or the settings' command is run.

At least once. That it may have begun was written before; that it was accepted is written after. In between another
controller may take the operation over, and asks again with the same key. Right before each request the records are
asked whether it is still this controller's to make: one that has slept must not have a host rebooted that takes VMs
again.

For as long as a request is under way it is proven that the operation is still this controller's. Where that cannot
be proven for a while, whatever the reason, the request is ended, before another controller may make it. A host goes
on, and an operation is stopped or let go, only when nothing runs for it here any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import structlog

from sterna.domain.errors import Permanent, SternaError, Temporary
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.stages import Change, HostStep, Stage
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import Backoff
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.hooks import Hooks, Notice, Right
from sterna.ports.operations import OperationRecord

log = structlog.get_logger(__name__)

FIRST_S, LONGEST_S = 5.0, 300.0
"""Pauses between requests that were not accepted."""
AT_ONCE = 16
"""Requests of one operation. What hangs holds up no other operation."""
FRESH_MS = 5_000.0
"""How old the records' word may be when the request is made."""
PROVE_S = 2.0
"""How often the records are asked whether the operation is still this controller's while a request is under way."""
RIGHT_MS = 10_000.0
"""A request is ended that long after the last question to which the records said so. Shorter than a lease
(`carrying_out.LEASE_MS`) by the time that ending a command takes."""


class NoHooks:
    """Of a controller without any in its settings."""

    def has_command(self) -> bool:
        """Never."""
        return False

    def against(self, url: str) -> str:
        """Always something."""
        return "`webhooks` in [fleet] of the controller's settings is empty"

    async def call(self, url: str, notice: Notice, right: Right) -> None:
        """Raises Permanent."""
        raise Permanent(f"the webhook is not called: {self.against(url)}")

    async def run(self, notice: Notice, limit_s: float, right: Right) -> None:
        """Raises Permanent."""
        raise Permanent("this controller has no command in `between` of [fleet]", fix="set it on all controllers")


@dataclass
class _Try:
    """One host's request that was not accepted yet."""

    since: str
    """Of the host's stage, when it was made first."""
    pause: Backoff = field(default_factory=lambda: Backoff(FIRST_S, LONGEST_S))
    again_ms: float = 0.0
    trouble: str = ""
    made: bool = False
    """It was accepted, and that is to be written."""
    task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Is a request under way, as far as is known here?"""
        return self.task is not None and not self.made


class _Lasting:
    """The right to one request."""

    def __init__(self, clock: Clock, since_ms: float) -> None:
        """`since_ms`: when the question was asked to which the records said that it is this controller's."""
        self._clock, self._until_ms = clock, since_ms + RIGHT_MS

    def left_s(self) -> float:
        """See ports.hooks.Right."""
        return (self._until_ms - self._clock.monotonic_ms()) / 1000

    def prove(self, since_ms: float) -> None:
        """The records have said so again."""
        self._until_ms = since_ms + RIGHT_MS

    def end(self) -> None:
        """Also for threads that are not waited for any more."""
        self._until_ms = float("-inf")


class BetweenCalls:
    """One controller's requests."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self.hooks: Hooks = NoHooks()
        self._tries: dict[tuple[str, str], _Try] = {}
        """By operation and key."""
        self._rooms: dict[str, asyncio.Semaphore] = {}

    def ask(self, operation: OperationRecord, step: HostStep) -> None:
        """Make the host's request, where it is due."""
        key = operation.id, key_of(operation, step)
        known = self._tries.setdefault(key, _Try(since=step.since))
        if known.since != step.since and known.task is None and not known.made:  # it was resumed: not so late again
            known = self._tries[key] = _Try(since=step.since)
        if known.task is None and self._clock.monotonic_ms() >= known.again_ms:
            known.task = asyncio.create_task(self._request(operation, step, known), name=f"between-{step.host}")

    def trouble(self, operation: OperationRecord, step: HostStep) -> str:
        """Why the host's last request was not accepted; '' where nothing is known."""
        known = self._tries.get((operation.id, key_of(operation, step)))
        return known.trouble if known is not None else ""

    async def _request(self, operation: OperationRecord, step: HostStep, known: _Try) -> None:
        try:
            with own_cancellation_only():
                async with self._rooms.setdefault(operation.id, asyncio.Semaphore(AT_ONCE)):
                    known.made = known.made or await self._make(operation, step)
                if known.made:
                    await self._accepted(operation, step)
                known.trouble = ""
        except SternaError as error:
            known.trouble = error.message
            log.info("a host's request is made again", operation=operation.id, host=step.host, why=error.message)
        except Exception:
            known.trouble = "an unexpected error; see the controller's log"
            log.exception("a host's request failed", operation=operation.id, host=step.host)
        finally:
            known.again_ms = self._clock.monotonic_ms() + known.pause.seconds * 1000
            known.pause.grow()
            known.task = None

    async def _make(self, operation: OperationRecord, step: HostStep) -> bool:
        """Was it made?"""
        since_ms = self._clock.monotonic_ms()
        held = await self._fleet.keep_operation(operation.id, operation.epoch)
        now = await self._now(operation, step)
        if held is None or held.status is not OperationStatus.RUNNING or now is None:
            return False
        if self._clock.monotonic_ms() - since_ms > FRESH_MS:
            return False
        notice = Notice(
            operation=operation.id,
            host=step.host,
            key=key_of(operation, step),
            reason=operation.reason,
            requested_by=operation.requested_by,
        )
        right = _Lasting(self._clock, since_ms)
        if operation.between.webhook:
            request = self.hooks.call(operation.between.webhook, notice, right.left_s)
        else:
            request = self.hooks.run(notice, operation.between.back_within_s, right.left_s)
        await self._while_held(operation, right, request)
        log.info("something is to be done to an empty host", operation=operation.id, host=step.host)
        return True

    async def _while_held(
        self, operation: OperationRecord, right: _Lasting, request: Coroutine[None, None, None]
    ) -> None:
        """Raises as the request does; Temporary where it was ended because the right to it was over."""
        making = asyncio.create_task(request, name="between-request")
        proving = asyncio.create_task(self._proved(operation, right), name="between-right")
        try:
            await asyncio.wait({making, proving}, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                raise Temporary(f"what was asked for was ended: {proving.result()}")
            making.result()
        finally:
            right.end()
            for task in (making, proving):
                task.cancel()
            await asyncio.gather(making, proving, return_exceptions=True)

    async def _proved(self, operation: OperationRecord, right: _Lasting) -> str:
        """Prove the right again and again. Why it is over, once it is."""
        while (left_s := right.left_s()) > 0:
            with contextlib.suppress(SternaError, TimeoutError):
                async with asyncio.timeout(left_s):
                    await asyncio.sleep(PROVE_S)
                    since_ms = self._clock.monotonic_ms()
                    if await self._fleet.keep_operation(operation.id, operation.epoch) is None:
                        return "another controller carries the operation out"
                    right.prove(since_ms)
        return "the records have not said for too long that the operation is still this controller's"

    async def _now(self, operation: OperationRecord, step: HostStep) -> HostStep | None:
        """The step as it is stored; None where it is to be asked for nothing more."""
        for one in await self._fleet.host_steps(operation.id):
            if one.host == step.host and one.rounds == step.rounds and is_asked(operation, one):
                return one
        return None

    async def _accepted(self, operation: OperationRecord, step: HostStep) -> None:
        """Write it. Where that fails, the request is made again: it has the same key."""
        while (was := await self._now(operation, step)) is not None:
            now = was.model_copy(update={"accepted_at": self._clock.now().isoformat()})
            if await self._fleet.advance_hosts(operation, [Change(was=was, now=now)]):
                return
            if await self._fleet.keep_operation(operation.id, operation.epoch) is None:
                return

    def still_runs(self, operation: OperationRecord, steps: Iterable[HostStep]) -> set[str]:
        """The hosts of these for which a request is under way that is not wanted any more. A command is ended; a
        webhook is waited for, which its limit ends soon: its server may have it already."""
        found = set()
        for step in steps:
            known = self._tries.get((operation.id, key_of(operation, step)))
            if known is not None and known.task is not None and known.runs:
                found.add(step.host)
                if not operation.between.webhook:
                    known.task.cancel()
        return found

    async def leave(self, operation: str) -> None:
        """End what runs here for it: another controller has it, or may have it after this."""
        tasks = [one.task for (id, _), one in self._tries.items() if id == operation and one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, unfinished: Collection[str]) -> None:
        """All other operations have ended, and so does what runs for them here."""
        for key in [key for key in self._tries if key[0] not in unfinished]:
            task = self._tries[key].task
            if task is None:
                del self._tries[key]
            else:
                task.cancel()
        for id in self._rooms.keys() - {id for id, _ in self._tries} - set(unfinished):
            del self._rooms[id]

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [one.task for one in self._tries.values() if one.task is not None]

    async def drained(self) -> None:
        """Wait until nothing is asked any more. For tests."""
        while tasks := self._tasks():
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End what is asked. Another controller asks again."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_asked(operation: OperationRecord, step: HostStep) -> bool:
    """Has something to be asked for the host?"""
    open_ = step.stage is Stage.BETWEEN and not step.accepted_at and not step.done_at
    return open_ and operation.between.asks


def key_of(operation: OperationRecord, step: HostStep) -> str:
    """The same for the same request, whichever controller makes it."""
    return str(uuid5(UUID(operation.id), f"{step.host}/{step.rounds}"))
