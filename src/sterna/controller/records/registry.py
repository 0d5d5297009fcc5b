"""Which hosts there are, and which are up: from the beacons their agents send every second.

A host is up when its agent described it lately, by this controller's own clock. An agent that cannot describe it
(its libvirtd is away) reports why: its journal can still be read, but it cannot be a destination. A host that was
accepted once stays known when it is down. A name belongs to the libvirt host UUID that it was first received with.
Where there is a CA, only hosts that have joined are believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import structlog

from sterna.controller.records.descriptions import facts_of, instant, lasting
from sterna.controller.records.members import Members
from sterna.domain import untrusted
from sterna.domain.errors import BadRequest, Conflict, NotFound, Unreachable
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Data, Value
from sterna.domain.trouble import Trouble
from sterna.ports.bus import BusState
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, HostRecord

log = structlog.get_logger(__name__)

UP_FOR_MS = 5_000
"""A host is down when no beacon came for this long: five lost in a row."""
LISTEN_FIRST_S = 1.9
"""How long a controller that has just started waits for known hosts: each sends a beacon every second."""
STORE_EVERY_MS = 300_000
"""Unchanged facts are stored this often, so that `seen_at` survives a restart of the controller roughly."""
MOST_UNDESCRIBED = 1_000
"""Hosts that have never been described, at most: a stranger needs only a name to become one."""
OFF_THE_BUS = "remove it from the bus: run `sterna bus config` again, then nats-server --signal reload"
_NUMBERS = ("libvirt_version", "qemu_version", "memory_total_bytes", "memory_free_bytes", "cpus")


HostState = Literal["up", "degraded", "down", "dead"]


class Host(Value):
    """One host as of now."""

    facts: HostFacts
    up: bool
    maintenance: bool
    maintenance_reason: str = ""
    """Why it is in maintenance, as the operator wrote it; '' where there is no reason."""
    seen_at: str
    """ISO 8601 UTC, the controller's clock, of the last beacon."""
    boot: str = ""
    """Of its agent, in its last beacon."""
    agent_version: str = ""
    """Of its agent's Sterna, in its last beacon; '' where that did not say."""
    dead_at: str = ""
    """When an operator declared it dead; '' where it was not."""
    back_at: str = ""
    """When a beacon came again after that."""
    bus_since: str = ""
    """ISO 8601 UTC, its own clock: since when its agent has been on the bus; '' where not known."""
    answers: bool = False
    """Its agent runs: a beacon came in the last seconds, whether or not it could describe the host."""
    trouble: Trouble | None = None
    """What its agent reports as wrong with the host; None where that is nothing, or no beacon comes."""
    warning: Trouble | None = None
    """What its agent warns of. The host can be used."""
    removed: bool = False
    """It was a member of the fleet and is none any more."""
    described: bool = True
    """False: nothing but the name is known, its agent has never been able to describe it."""

    @property
    def dead(self) -> bool:
        """Declared dead, and no beacon since."""
        return bool(self.dead_at) and not self.back_at and not self.up

    @property
    def gone(self) -> bool:
        """Declared dead or removed: not expected back."""
        return self.dead or self.removed

    @property
    def usable(self) -> bool:
        """Up, with nothing wrong: a migration may begin or end here."""
        return self.up and self.trouble is None

    @property
    def state(self) -> HostState:
        """In one word; `degraded`: its agent runs, and reports why the host cannot take part."""
        if self.usable:
            return "up"
        if self.dead:
            return "dead"
        return "degraded" if self.up or (self.answers and self.trouble is not None) else "down"

    @property
    def name(self) -> str:
        """The host's name."""
        return self.facts.name

    def not_usable(self, bus: BusState) -> Trouble | None:
        """Why it cannot be used, as far as a controller whose connection to the bus is `bus` can know."""
        if self.usable:
            return None
        if self.trouble is not None:
            return self.trouble
        if not bus.connected:
            since = f"{bus.since:%Y-%m-%d %H:%M:%S} UTC"
            why = f"this controller has not been connected to the message bus since {since}: {bus.why}"
            return Trouble(why=why, since=bus.since.isoformat(), fix="check that the bus runs and can be reached")
        why = (
            f"nothing received from its agent since {self.seen_at[:19]} UTC: it does not run, or has no "
            "connection to the bus"
        )
        fix = f"start the Sterna agent on {self.name}, or repair its network"
        return Trouble(why=why, since=self.seen_at, fix=fix)


@dataclass
class _Described:
    """The last beacon of an agent that described its host."""

    facts: HostFacts
    raw: Data
    """As it came: a beacon that says the same need not be read again."""
    boot: str
    at_ms: float
    at: str
    stored_ms: float
    journal_last: int
    bus_since: str = ""
    trouble: Trouble | None = None
    warning: Trouble | None = None
    version: str = ""


@dataclass
class _Undescribed:
    """The last beacon of an agent that could not describe its host."""

    trouble: Trouble
    boot: str
    at_ms: float
    at: str
    journal_last: int = 0


class Registry:
    """The hosts."""

    def __init__(self, fleet: Fleet, clock: Clock, members: Members) -> None:
        self._fleet, self._clock, self._members = fleet, clock, members
        self._described: dict[str, _Described] = {}
        self._undescribed: dict[str, _Undescribed] = {}
        self._storing: set[str] = set()
        self._refused: set[tuple[str, str]] = set()
        self.beacons_refused = 0
        """Since this controller has been running."""
        self._news = asyncio.Event()

    async def wait_for_beacons(self) -> None:
        """Return when each accepted host has sent a beacon, or its time is over: before, all seem down."""
        try:
            known = {record.name for record in await self._fleet.hosts() if not record.dead_at}
        except Unreachable:  # their states are not known
            return
        time_is_up = asyncio.ensure_future(self._clock.sleep(LISTEN_FIRST_S))
        try:
            while not known <= self._described.keys() | self._undescribed.keys() and not time_is_up.done():
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait((news, time_is_up), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            time_is_up.cancel()

    async def beacon(self, topic: str, data: Data) -> HostFacts | None:
        """Take one beacon (topic `host.<name>`). None where it was refused, which is logged once, or where the
        agent cannot describe its host and reports why."""
        name = topic.removeprefix("host.")
        outside = self._members.against(name)
        if outside is not None:
            fix = OFF_THE_BUS if self._members.was_removed(name) else outside.fix
            self._refuse(topic, "", outside.why, fix)
            return None
        described = self._described.get(topic.removeprefix("host."))
        try:
            trouble = untrusted.trouble(data["trouble"]) if data.get("trouble") else None
            boot, last = str(data.get("boot", "")), int(data.get("journal_last") or 0)
            if trouble is not None and data.get("host") is None:
                self._take_undescribed(topic, str(data.get("name", "")), boot, trouble, last)
                return None
            facts = facts_of(
                data.get("host"), described.facts if described else None, described.raw if described else {}
            )
            bus_since = instant(data.get("bus_since"))
            warning = untrusted.trouble(data["warning"]) if data.get("warning") else None
        except (BadRequest, TypeError, ValueError) as e:
            self._refuse(topic, "", f"cannot be read: {e}")
            return None
        if topic != f"host.{facts.name}":
            self._refuse(topic, facts.host_uuid, f"claims to be {facts.name}")
            return None
        now_ms, now = self._clock.monotonic_ms(), self._clock.now().isoformat()
        stored_ms = described.stored_ms if described else now_ms
        new = _Described(facts, data["host"], boot, now_ms, now, stored_ms, last, bus_since, trouble, warning)
        new.version = untrusted.version(data.get("version"))
        if (described is None or self._worth_storing(described, new)) and not await self._stored(topic, new):
            return None
        self._refused.discard((topic, ""))
        self._described[facts.name] = new
        self._undescribed.pop(facts.name, None)
        self._news.set()
        return facts

    async def _stored(self, topic: str, new: _Described) -> bool:
        """False where the name belongs to another host, or the one before is still being stored: a database that
        is slow must not collect beacons. Raises Unreachable."""
        name = new.facts.name
        if name in self._storing:
            return False
        self._storing.add(name)
        try:
            await self._fleet.save_host(new.facts, new.boot, new.at)
        except Conflict as e:
            self._refuse(topic, new.facts.host_uuid, e.message, e.fix)
            return False
        finally:
            self._storing.discard(name)
        new.stored_ms = new.at_ms
        return True

    def _take_undescribed(self, topic: str, name: str, boot: str, trouble: Trouble, last: int) -> None:
        known = name in self._described or name in self._undescribed
        if not untrusted.is_name(name) or topic != f"host.{name}":
            self._refuse(topic, "", f"claims to be {name}")
        elif known or len(self._undescribed) < MOST_UNDESCRIBED:
            now = self._clock.now().isoformat()
            self._undescribed[name] = _Undescribed(trouble, boot, self._clock.monotonic_ms(), now, last)
            self._news.set()

    def described(self) -> list[HostFacts]:
        """The hosts whose agents have described them to this controller, as they did last."""
        return [one.facts for one in self._described.values()]

    def enrolled_at(self, name: str) -> tuple[str, ...] | None:
        """See Members.addresses."""
        return self._members.addresses(name)

    def is_up(self, name: str) -> bool:
        """Did its agent describe it in the last seconds?"""
        described = self._described.get(name)
        return described is not None and self._lately(described.at_ms)

    def usable(self) -> frozenset[str]:
        """Those that agents have described in the last seconds, with nothing wrong."""
        return frozenset(n for n, one in self._described.items() if self._lately(one.at_ms) and one.trouble is None)

    def answers(self, name: str) -> bool:
        """Did its agent send a beacon in the last seconds?"""
        undescribed = self._undescribed.get(name)
        return self.is_up(name) or (undescribed is not None and self._lately(undescribed.at_ms))

    def journal_end(self, name: str) -> tuple[str, int]:
        """Its agent's life, and the last entry it has written in it, by its last beacon."""
        beacon = self._undescribed.get(name) or self._described.get(name)
        return (beacon.boot, beacon.journal_last) if beacon is not None else ("", 0)

    def _lately(self, at_ms: float) -> bool:
        return self._clock.monotonic_ms() - at_ms <= UP_FOR_MS

    async def hosts(self) -> list[Host]:
        """All hosts ever accepted, and those whose agents have not been able to describe them, by name."""
        known = [self._view(record) for record in await self._fleet.hosts()]
        new = [self._never_described(name) for name in self._only_undescribed(host.name for host in known)]
        return sorted([*known, *new], key=lambda host: host.name)

    def _only_undescribed(self, known: Iterable[str]) -> set[str]:
        """The hosts that take part, whose agents have never been able to describe them, besides those `known`."""
        new = self._undescribed.keys() - set(known)
        return {name for name in new if self._members.against(name) is None}

    async def away(self) -> tuple[list[Host], list[str]]:
        """The hosts that are not up, and the names of those that are."""
        records = await self._fleet.hosts()
        up = [record.name for record in records if self.is_up(record.name)]
        away = [self._view(record) for record in records if not self.is_up(record.name)]
        new = [self._never_described(name) for name in self._only_undescribed(r.name for r in records)]
        return [*away, *new], up

    async def unusable(self) -> tuple[list[Host], int]:
        """The hosts where no migration may begin or end now, and how many others there are."""
        records, well = await self._fleet.hosts(), self.usable()
        found = [self._view(record) for record in records if record.name not in well]
        new = [self._never_described(name) for name in self._only_undescribed(r.name for r in records)]
        return sorted([*found, *new], key=lambda host: host.name), len(records) - len(found)

    async def named(self, names: Collection[str]) -> list[Host]:
        """These hosts, by name, in one read. Raises NotFound."""
        found = {host.name: host for host in await self.hosts() if host.name in names}
        for name in sorted(set(names) - found.keys()):
            await self.host(name)  # which says that there is none
        return list(found.values())

    async def page(
        self, after: str, limit: int, *, name: str = "", states: Collection[HostState] = ()
    ) -> list[Host]:
        """So many behind that name, by name: those with this as a part of their names, in one of these states."""
        records = {r.name: r for r in await self._fleet.hosts()}
        found: list[Host] = []
        for one in sorted(records.keys() | self._only_undescribed(records)):
            if one <= after or name not in one:
                continue
            host = self._view(records[one]) if one in records else self._never_described(one)
            if not states or host.state in states:
                found.append(host)
            if len(found) == limit:
                break
        return found

    async def host(self, name: str) -> Host:
        """Raises NotFound."""
        try:
            return self._view(await self._fleet.host(name))
        except NotFound:
            if name not in self._only_undescribed(()):
                raise
            return self._never_described(name)

    async def set_maintenance(self, name: str, on: bool, reason: str = "") -> Host:
        """A host in maintenance takes no VMs; its own keep running. Raises NotFound."""
        host = self._view(await self._fleet.set_maintenance(name, on, reason))
        log.info("maintenance changed", host=name, on=on, why=reason)
        return host

    async def set_dead(self, name: str, at: str) -> Host:
        """An operator's declaration that it is gone and fenced; '' takes it back. Raises NotFound."""
        host = self._view(await self._fleet.set_dead(name, at))
        log.warning("host declared dead" if at else "host no longer declared dead", host=name)
        return host

    def _never_described(self, name: str) -> Host:
        undescribed = self._undescribed[name]
        nothing: Data = {"host_uuid": "", "address": "", **dict.fromkeys(_NUMBERS, 0)}
        return Host(
            facts=HostFacts.model_validate({"name": name} | nothing),
            up=False,
            maintenance=False,
            seen_at=undescribed.at,
            boot=undescribed.boot,
            answers=self.answers(name),
            trouble=undescribed.trouble if self._lately(undescribed.at_ms) else None,
            described=False,
        )

    def _view(self, record: HostRecord) -> Host:
        described, undescribed = self._described.get(record.name), self._undescribed.get(record.name)
        up, trouble, seen_at = self.is_up(record.name), None, described.at if described else record.seen_at
        if up and described:
            trouble = described.trouble
        elif undescribed is not None:
            trouble, seen_at = undescribed.trouble if self._lately(undescribed.at_ms) else None, undescribed.at
        trouble = self._members.against(record.name, seen_at) or trouble
        return Host(
            facts=described.facts if described else record.facts,
            up=up,
            answers=self.answers(record.name),
            trouble=trouble,
            maintenance=record.maintenance,
            maintenance_reason=record.maintenance_reason,
            seen_at=seen_at,
            boot=described.boot if described else record.boot,
            agent_version=described.version if described else "",
            dead_at=record.dead_at,
            back_at=record.back_at,
            bus_since=described.bus_since if described else "",
            warning=described.warning if up and described else None,
            removed=self._members.was_removed(record.name),
        )

    def _worth_storing(self, old: _Described, new: _Described) -> bool:
        changed = lasting(old.raw) != lasting(new.raw)
        was_silent = new.at_ms - old.at_ms > UP_FOR_MS
        return changed or was_silent or old.boot != new.boot or new.at_ms - old.stored_ms >= STORE_EVERY_MS

    def _refuse(self, topic: str, host_uuid: str, why: str, fix: str = "") -> None:
        self.beacons_refused += 1
        if (topic, host_uuid) not in self._refused:
            if len(self._refused) >= MOST_UNDESCRIBED:  # whoever sends them chooses the UUIDs
                self._refused.clear()
            self._refused.add((topic, host_uuid))
            log.warning("heartbeat refused", topic=topic, host_uuid=host_uuid, why=why, fix=fix)
