"""Which hosts there are, and which are up: from the beacons their agents send every second.

Up is what was heard lately by this controller's own clock; a host that was never refused stays known when it is
down. A name belongs to the libvirt host UUID it was first heard with.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from sterna.domain import untrusted
from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.model import Data, HostFacts, Value
from sterna.ports.bus import BusState
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, HostRecord

log = structlog.get_logger(__name__)

UP_FOR_MS = 5_000
"""A host is down when nothing was heard of it for this long: five beacons lost in a row."""
LISTEN_FIRST_S = 1.9
"""A controller that has just started listens so long for the hosts it knows: each is heard every second."""
STORE_EVERY_MS = 30_000
"""Unchanged facts are stored this often, so that `seen_at` survives a restart of the controller roughly."""
_FLEETING = {"memory_free_bytes", "disk_free_bytes"}


class Host(Value):
    """One host as of now."""

    facts: HostFacts
    up: bool
    maintenance: bool
    seen_at: str
    """ISO 8601 UTC, the controller's clock, of the last beacon."""
    boot: str = ""
    """Of its agent, as last heard."""
    dead_at: str = ""
    """When an operator declared it dead; '' where nobody did."""
    back_at: str = ""
    """When it was heard again after that."""
    bus_since: str = ""
    """ISO 8601 UTC, its own clock: since when its agent has been on the bus, as last heard; '' where not known."""

    @property
    def dead(self) -> bool:
        """Declared dead, and not heard since."""
        return bool(self.dead_at) and not self.back_at and not self.up

    @property
    def name(self) -> str:
        """The host's name."""
        return self.facts.name

    def why_not_up(self, bus: BusState) -> str | None:
        """As far as a controller whose connection to the bus is `bus` can know; None where the host is up."""
        if self.up:
            return None
        if not bus.connected:
            since = f"{bus.since:%Y-%m-%d %H:%M:%S} UTC"
            return f"this controller has been without the message bus since {since}: {bus.why}"
        return f"nothing received from its agent since {self.seen_at[:19]}: it does not run, or has lost the bus"


@dataclass
class _Heard:
    facts: HostFacts
    boot: str
    at_ms: float
    at: str
    stored_ms: float
    journal_last: int
    bus_since: str = ""


class Registry:
    """The hosts."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._heard: dict[str, _Heard] = {}
        self._refused: set[tuple[str, str]] = set()
        self._news = asyncio.Event()

    async def hear_all(self) -> None:
        """Return when every host that was ever accepted was heard, or has had its time: before, all seem down."""
        known = {record.name for record in await self._fleet.hosts() if not record.dead_at}
        time_is_up = asyncio.ensure_future(self._clock.sleep(LISTEN_FIRST_S))
        try:
            while not known <= self._heard.keys() and not time_is_up.done():
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait((news, time_is_up), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            time_is_up.cancel()

    async def beacon(self, topic: str, data: Data) -> HostFacts | None:
        """Take one beacon (topic `host.<name>`); None where it was refused, which is logged once."""
        try:
            facts = untrusted.host_facts(data.get("host"))
            boot, last = str(data.get("boot", "")), int(data.get("journal_last") or 0)
            bus_since = _instant(data.get("bus_since"))
        except (BadRequest, TypeError, ValueError) as e:
            self._refuse(topic, "", f"cannot be read: {e}")
            return None
        if topic != f"host.{facts.name}":
            self._refuse(topic, facts.host_uuid, f"says that it is {facts.name}")
            return None
        heard = self._heard.get(facts.name)
        now_ms, now = self._clock.monotonic_ms(), self._clock.now().isoformat()
        new = _Heard(facts, boot, now_ms, now, heard.stored_ms if heard else now_ms, last, bus_since)
        if heard is None or self._worth_storing(heard, new):
            try:
                await self._fleet.save_host(facts, boot, now)
            except Conflict as e:
                self._refuse(topic, facts.host_uuid, e.message, e.fix)
                return None
            new.stored_ms = now_ms
        self._heard[facts.name] = new
        self._news.set()
        return facts

    def is_up(self, name: str) -> bool:
        """Was it heard in the last seconds?"""
        heard = self._heard.get(name)
        return heard is not None and self._clock.monotonic_ms() - heard.at_ms <= UP_FOR_MS

    async def hosts(self) -> list[Host]:
        """All hosts ever accepted, by name."""
        return [self._view(record) for record in await self._fleet.hosts()]

    async def host(self, name: str) -> Host:
        """Raises NotFound."""
        return self._view(await self._fleet.host(name))

    async def set_maintenance(self, name: str, on: bool) -> Host:
        """In maintenance a host is nobody's destination; what runs there stays. Raises NotFound."""
        host = self._view(await self._fleet.set_maintenance(name, on))
        log.info("maintenance changed", host=name, on=on)
        return host

    async def set_dead(self, name: str, at: str) -> Host:
        """An operator's word that it is gone and fenced; '' takes it back. Raises NotFound."""
        host = self._view(await self._fleet.set_dead(name, at))
        log.warning("host declared dead" if at else "host no longer declared dead", host=name)
        return host

    def _view(self, record: HostRecord) -> Host:
        heard = self._heard.get(record.name)
        return Host(
            facts=heard.facts if heard else record.facts,
            up=self.is_up(record.name),
            maintenance=record.maintenance,
            seen_at=heard.at if heard else record.seen_at,
            boot=heard.boot if heard else record.boot,
            dead_at=record.dead_at,
            back_at=record.back_at,
            bus_since=heard.bus_since if heard else "",
        )

    def _worth_storing(self, old: _Heard, new: _Heard) -> bool:
        changed = old.facts.model_dump(exclude=_FLEETING) != new.facts.model_dump(exclude=_FLEETING)
        was_silent = new.at_ms - old.at_ms > UP_FOR_MS
        return changed or was_silent or old.boot != new.boot or new.at_ms - old.stored_ms >= STORE_EVERY_MS

    def _refuse(self, topic: str, host_uuid: str, why: str, fix: str = "") -> None:
        if (topic, host_uuid) not in self._refused:
            self._refused.add((topic, host_uuid))
            log.warning("beacon refused", topic=topic, host_uuid=host_uuid, why=why, fix=fix)


def _instant(value: object) -> str:
    """An instant of an agent's clock, ISO 8601 UTC; '' where it sent none. Raises ValueError."""
    return datetime.fromisoformat(str(value)).astimezone(UTC).isoformat() if value else ""
