"""One controller's notifications: its endpoints, how each gets on, and tests of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import structlog

from sterna.controller.notifications.endpoint import Chosen, Delivering, Tally
from sterna.controller.notifications.hosts import HostWatch
from sterna.controller.records.registry import Registry
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Family, family
from sterna.domain.model import Value
from sterna.domain.notifications.events import EventType
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.bus import BusState
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.notifications import EndpointRecord, Notification, Sender

log = structlog.get_logger(__name__)

LOOK_S = 2.0
HOSTS_S = 5.0
SEEN_EVERY_S = 600.0
"""How often it is written that these endpoints are in the settings."""
OF_HOSTS = {EventType.HOST_DOWN, EventType.HOST_UP}


class EndpointState(Value):
    """An endpoint as users see it."""

    record: EndpointRecord
    server: str = ""
    """Its address without the path; '' where it is not in this controller's settings."""


class Tested(Value):
    """What an endpoint has answered to a test."""

    name: str
    server: str
    accepted: bool
    status: int | None = None
    """HTTP status; None where no answer came."""
    answer: str = ""
    """The beginning of its body."""
    error: str = ""
    """Why no answer came."""
    took_s: float = 0.0


class Notifications:
    """Those of one controller."""

    def __init__(self, fleet: Fleet, registry: Registry, bus: Callable[[], BusState], clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._hosts = HostWatch(fleet, registry, bus, clock)
        self._delivering: list[Delivering] = []
        self._sender: Sender | None = None
        self._tally = Tally(())
        self._tasks: list[asyncio.Task[None]] = []

    def use(self, endpoints: Sequence[Chosen], sender: Sender) -> None:
        """The endpoints of the settings, before `start`."""
        self._sender, self._tally = sender, Tally([one.name for one in endpoints])
        self._delivering = [Delivering(one, self._fleet, sender, self._clock, self._tally) for one in endpoints]

    @property
    def _chosen(self) -> list[Chosen]:
        return [one.endpoint for one in self._delivering]

    def start(self) -> None:
        """Send what waits, until `stop`. One endpoint does not wait for another one."""
        if not self._delivering:
            return
        works: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("notify-settings", SEEN_EVERY_S, self.register),
            *((f"notify-{one.endpoint.name}", LOOK_S, one.look) for one in self._delivering),
        ]
        if any(OF_HOSTS & set(one.events) for one in self._chosen):
            works.append(("notify-hosts", HOSTS_S, self._hosts.look))
        self._tasks = [asyncio.create_task(_every(seconds, work), name=name) for name, seconds, work in works]

    async def stop(self) -> None:
        """Send nothing more. Another controller goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await asyncio.gather(self._hosts.leave(), *(one.leave() for one in self._delivering))
        self._tasks = []

    async def register(self) -> None:
        """Write which endpoints there are: from then on events are written for them. Raises Unreachable."""
        if self._delivering:
            wanted = {one.name: one.events for one in self._chosen}
            await self._fleet.put_endpoints(wanted, self._clock.now().isoformat())

    async def look(self) -> None:
        """Once, at hosts and all endpoints. For tests. Raises Unreachable."""
        await self._hosts.look()
        await asyncio.gather(*(one.look() for one in self._delivering))

    async def states(self) -> list[EndpointState]:
        """All endpoints of the records and of the settings, by name. Raises Unreachable."""
        servers = {one.name: one for one in self._chosen}
        records = {record.name: record for record in await self._fleet.endpoints()}
        for name, one in servers.items():
            records.setdefault(name, EndpointRecord(name=name, events=one.events))
        return [
            EndpointState(record=record, server=servers[name].server if name in servers else "")
            for name, record in sorted(records.items())
        ]

    async def test(self, name: str | None) -> list[Tested]:
        """Send a test event to the endpoint of that name, or to all. Raises NotFound."""
        wanted = [one for one in self._chosen if name in (None, one.name)]
        if name is not None and not wanted:
            raise NotFound(
                f"this controller's settings have no endpoint {name}",
                fix="`sterna notify list` lists them; see [[notify]] of the controller's settings",
            )
        return list(await asyncio.gather(*(self._test(one) for one in wanted)))

    async def _test(self, endpoint: Chosen) -> Tested:
        assert self._sender is not None
        at, began_ms = self._clock.now().isoformat(), self._clock.monotonic_ms()
        message = Notification(
            endpoint=endpoint.name, subject="", id=str(uuid4()), type=EventType.TEST, at=at, data={}
        )
        known = Tested(name=endpoint.name, server=endpoint.server, accepted=False)
        try:
            answer = await self._sender.send(message, read=True)
            found = {"accepted": answer.accepted, "status": answer.status, "answer": answer.text}
        except SternaError as error:
            found = {"error": error.message}
        took_s = round((self._clock.monotonic_ms() - began_ms) / 1000, 3)
        return known.model_copy(update=found | {"took_s": took_s})

    def sent(self) -> Family:
        """How often something was sent, as a metric."""
        return self._tally.count.family()

    async def pending(self) -> Family:
        """How much waits for each endpoint, as a metric. Raises Unreachable."""
        own = {one.name for one in self._chosen}
        records = await self._fleet.endpoints() if own else []
        waiting = {(one.name,): float(one.pending) for one in records if one.name in own}
        return family(catalogue.NOTIFICATIONS_PENDING, waiting)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """For ever; what fails is tried again."""
    while True:
        pause = seconds
        try:
            with own_cancellation_only():
                await work()
        except SternaError as error:
            pause = min(seconds, LOOK_S)
            log.info("notifications are looked at again later", why=error.message)
        except Exception:
            log.exception("looking at notifications failed")
        await asyncio.sleep(pause)
