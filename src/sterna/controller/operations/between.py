"""What is asked for each empty host of a rolling operation: its webhook is called, or the settings' command is run.

At least once. That it may have begun was written before; that it was accepted is written after. In between another
controller may take the operation over, and asks again with the same key. Right before each request the records are
asked whether it is still this controller's to make: one that has slept must not have a host rebooted that takes VMs
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import structlog

from sterna.domain.errors import Permanent, SternaError
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.stages import Change, HostStep, Stage
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import Backoff
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.hooks import Hooks, Notice
from sterna.ports.operations import OperationRecord

log = structlog.get_logger(__name__)

FIRST_S, LONGEST_S = 5.0, 300.0
"""Pauses between requests that were not accepted."""
AT_ONCE = 16
"""Requests of one operation. What hangs holds up no other operation."""
FRESH_MS = 5_000.0
"""How old the records' word may be when the request is made."""


class NoHooks:
    """Of a controller without any in its settings."""

    def has_command(self) -> bool:
        """Never."""
        return False

    def against(self, url: str) -> str:
        """Always something."""
        return "`webhooks` in [fleet] of the controller's settings names no address"

    async def call(self, url: str, notice: Notice) -> None:
        """Raises Permanent."""
        raise Permanent(f"the webhook is not called: {self.against(url)}")

    async def run(self, notice: Notice, limit_s: float) -> None:
        """Raises Permanent."""
        raise Permanent("this controller has no command in `between` of [fleet]", fix="give all controllers one")


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
            known.trouble = "an unexpected error, which the controller's log has"
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
        if operation.between.webhook:
            await self.hooks.call(operation.between.webhook, notice)
        else:
            await self.hooks.run(notice, operation.between.back_within_s)
        log.info("something is to be done to an empty host", operation=operation.id, host=step.host)
        return True

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

    def leave(self, operation: str) -> None:
        """Another controller has it: what runs here for it is ended."""
        for (id, _), known in self._tries.items():
            if id == operation and known.task is not None:
                known.task.cancel()

    def forget(self, unfinished: Collection[str]) -> None:
        """All other operations have ended. What runs for them goes on to its end."""
        for key in [key for key, one in self._tries.items() if key[0] not in unfinished and one.task is None]:
            del self._tries[key]
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
