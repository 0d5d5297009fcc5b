"""What waits for one endpoint is sent to it, by one controller at a time.

At least once: a notification is removed from the records after the endpoint has accepted it. In order for each
subject: the next one about it is not sent before that, or before it is given up. So two controllers that both send
repeat something at most.

A try that fails holds back its subject for a while. Unless the answer may be about that one message (400, 409, 413,
415, 422, 500), it holds back the endpoint as well, which is down, or wrong in the settings: it is tried again with
one message at a time, about another subject where there is one, and less and less often.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from sterna.controller.leases import OwnLease
from sterna.domain.errors import SternaError
from sterna.domain.metrics import catalogue
from sterna.domain.metrics.tally import Count
from sterna.domain.notifications.events import EventType
from sterna.kit.waiting import Backoff
from sterna.ports.clock import Clock
from sterna.ports.notifications import Notification, NotificationRecords, Sender

log = structlog.get_logger(__name__)

FIRST_S, LONGEST_S = 5.0, 300.0
"""Pauses between tries. Each is shortened by up to a half, at random: several endpoints of one server are not
called at the same moment."""
AT_ONCE = 8
"""Requests to one endpoint, each about another subject."""
BEAT_S = 3.0
MOST_HELD_BACK = 100
"""Subjects. Nothing else is sent while so many are."""
OF_THE_MESSAGE = frozenset({400, 409, 413, 415, 422, 500})
"""HTTP statuses that may be about one message, and not about the endpoint."""
RESULTS = ("delivered", "failed", "given_up")


class Chosen:
    """An endpoint as one controller's settings have it."""

    def __init__(
        self, name: str, server: str, events: Sequence[EventType], give_up_after_s: float = 86_400.0
    ) -> None:
        """`server`: its address without the path, to be shown."""
        self.name, self.server, self.events, self.give_up_after_s = name, server, tuple(events), give_up_after_s


@dataclass
class _Pause:
    """Until when nothing is sent."""

    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_S, LONGEST_S))
    until_ms: float = 0.0
    fails: int = 0


class Tally:
    """What this controller has sent, for metrics."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        known = [(name, result) for name in endpoints for result in RESULTS]
        self.count = Count(catalogue.NOTIFICATIONS, *known)


class Delivering:
    """One controller's part in the deliveries to one endpoint."""

    def __init__(
        self,
        endpoint: Chosen,
        records: NotificationRecords,
        sender: Sender,
        clock: Clock,
        tally: Tally,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance`: from 0 to 1."""
        self.endpoint, self._records, self._sender = endpoint, records, sender
        self._clock, self._tally, self._chance = clock, tally, chance
        self._lease = OwnLease(f"notify/{endpoint.name}", records, clock)
        self._pause = _Pause()
        self._held_back: dict[str, _Pause] = {}
        """By subject."""
        self._said = ""
        self._began, self._began_ms = clock.now(), clock.monotonic_ms()

    async def look(self) -> None:
        """Send what is due, if this controller is the one to do it. Raises Unreachable."""
        if not await self._lease.hold():
            return
        beating = asyncio.create_task(self._beat(), name=f"beat-{self.endpoint.name}")
        try:
            while self._clock.monotonic_ms() >= self._pause.until_ms and await self._sent_some():
                pass
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def leave(self) -> None:
        """Another controller may go on at once."""
        await self._lease.release()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(SternaError):
                if not await self._lease.hold():
                    return

    async def _sent_some(self) -> bool:
        """Is there perhaps more to be sent at once?"""
        tried_again, waiting = not self._pause.backoff.first, self._waiting()
        if len(waiting) >= MOST_HELD_BACK:
            return False
        due = await (self._probe(waiting) if tried_again else self._due(waiting, AT_ONCE))
        whys = await asyncio.gather(*(self._send(one) for one in due), return_exceptions=True)
        for why in whys:
            if isinstance(why, BaseException):
                raise why
        if wrong := [str(why) for why in whys if why]:
            await self._is_wrong(wrong[0])
        elif due and tried_again:
            self._works_again()
        return bool(due) and not wrong

    async def _probe(self, waiting: Sequence[str]) -> Sequence[Notification]:
        """One, to see whether the endpoint works again: about a subject that it has not failed on, if any;
        what it has failed on may be all that it fails on."""
        return await self._due(list(self._held_back), 1) or await self._due(waiting, 1)

    async def _due(self, but: Sequence[str], most: int) -> Sequence[Notification]:
        return await self._records.due(self.endpoint.name, but, most)

    def _waiting(self) -> list[str]:
        """The subjects that are held back now. Those that could be sent long ago are forgotten."""
        now = self._clock.monotonic_ms()
        for subject, pause in list(self._held_back.items()):
            if now - pause.until_ms > 2 * LONGEST_S * 1000:
                del self._held_back[subject]
        return [subject for subject, pause in self._held_back.items() if pause.until_ms > now]

    def _works_again(self) -> None:
        """What has failed once may have failed because of the endpoint."""
        self._pause, self._said = _Pause(), ""
        for pause in self._held_back.values():
            if pause.fails == 1:
                pause.until_ms = self._clock.monotonic_ms()
        log.info("an endpoint of notifications can be used again", endpoint=self.endpoint.name)

    async def _send(self, one: Notification) -> str:
        """Once; what is wrong with the endpoint, '' where nothing is. Raises Unreachable of the records."""
        try:
            answer = await self._sender.send(one)
        except SternaError as error:
            self._hold_back(one)
            return error.message
        if answer.accepted:
            self._held_back.pop(one.subject, None)
            await self._records.delivered(one, self._clock.now().isoformat())
            self._tally.count.add(self.endpoint.name, "delivered")
            return ""
        held_back = self._hold_back(one)
        why = f"{self.endpoint.server} answers with status {answer.status}"
        if answer.status not in OF_THE_MESSAGE:
            return why
        if held_back.fails == 1:
            name = self.endpoint.name
            log.warning("a notification was refused", endpoint=name, id=one.id, type=str(one.type), why=why)
        await self._failed(f"{why} to {one.type} of {one.subject}", one.subject)
        return ""

    def _hold_back(self, one: Notification) -> _Pause:
        pause = self._held_back.setdefault(one.subject, _Pause())
        self._later(pause)
        return pause

    async def _is_wrong(self, why: str) -> None:
        self._later(self._pause)
        if why != self._said:
            self._said = why
            log.warning("notifications cannot be delivered; trying again", endpoint=self.endpoint.name, why=why)
        await self._failed(why)

    def _later(self, pause: _Pause) -> None:
        seconds = pause.backoff.seconds * (1 - self._chance() / 2)
        pause.until_ms = self._clock.monotonic_ms() + seconds * 1000
        pause.backoff.grow()
        pause.fails += 1

    async def _failed(self, why: str, subject: str = "") -> None:
        """Write it, and give up what is too old."""
        self._tally.count.add(self.endpoint.name, "failed")
        await self._records.not_delivered(self.endpoint.name, why, self._clock.now().isoformat())
        before = self._now() - timedelta(seconds=self.endpoint.give_up_after_s)
        number = await self._records.give_up(self.endpoint.name, before.isoformat(), subject)
        if number:
            self._held_back.pop(subject, None)
            self._tally.count.add(self.endpoint.name, "given_up", by=number)
            log.error("notifications were given up", endpoint=self.endpoint.name, number=number, why=why)

    def _now(self) -> datetime:
        """A clock that is set forward while the controller runs gives nothing up."""
        passed = timedelta(milliseconds=self._clock.monotonic_ms() - self._began_ms)
        return min(self._clock.now(), self._began + passed)
