"""Keeps the records fresh: listens to hints, and looks by itself where none came. One task per host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from sterna.controller.calls import AgentCalls, ask_source
from sterna.controller.intents.declare_dead import DeclareDead
from sterna.controller.records.copy_progress import CopyProgress
from sterna.controller.records.inventory import Inventory
from sterna.controller.records.projector import Projector
from sterna.controller.records.registry import Registry
from sterna.controller.records.snapshot import Snapshot
from sterna.controller.records.under_way import under_way
from sterna.controller.revoking import Revoking
from sterna.domain.errors import BadRequest, SternaError, Temporary, Unreachable
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.kit.tasks import all_of, own_cancellation_only
from sterna.ports.bus import Subscription
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

log = structlog.get_logger(__name__)

PULL_AGAIN_S = 2.0
"""A journal that could not be read is tried again."""
READ_ON_S = 1.0
"""Between two goes at a journal that is longer than one: others are read meanwhile."""
MORE = "more"
"""What `_pull` says of such a journal."""
READ_ANYWAY_S = 60.0
"""Hints can be lost; the next beacon says where the journal ends. Without either it is read this often."""
LIST_EVERY_S = 15.0
"""How old the last sight of a VM is at most, on a host whose agent does not tell of changes by itself."""
CHECK_EVERY_S = 10.0
STORE_PROGRESS_EVERY_S = 2.0
"""What is due of it (`copies.py`)."""
TIDY_EVERY_S = 10.0
GIVE_UP_AFTER_MS = 120_000.0
"""A request the source never accepted is ended when this controller has known it for so long; asking takes at most
80 s (migrate_vm.ASKING_S). Measured by the monotonic clock: the wall clock may jump."""
END_S = 60.0
"""For the end of each, all at once."""


@dataclass(frozen=True)
class Parts:
    """What is kept fresh."""

    registry: Registry
    projector: Projector
    copies: CopyProgress
    inventory: Inventory
    snapshot: Snapshot
    deaths: DeclareDead
    revoking: Revoking


class Follower:
    """Background work of one controller."""

    def __init__(self, fleet: Fleet, parts: Parts, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._calls, self._clock = fleet, calls, clock
        self._registry, self._projector, self._deaths = parts.registry, parts.projector, parts.deaths
        self._revoking = parts.revoking
        self._inventory, self._snapshot, self._copies = parts.inventory, parts.snapshot, parts.copies
        self._wanted: dict[str, asyncio.Event] = {}
        self._read_to: dict[str, tuple[str, int]] = {}
        """Where each journal ended, by its host's beacon, when it was read last."""
        self._queued: dict[str, float] = {}
        """Requests not accepted yet, and when this controller saw each first (monotonic ms)."""
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Subscribe, and follow every known host; without a database, as soon as it is back."""
        for topic, handler in (
            ("host.*", self._on_beacon),
            ("journal.*", self._on_journal),
            ("progress.*.*", self._on_progress),
            ("vms.*", self._snapshot.changed),
        ):
            self._subscriptions.append(await self._calls.listen(topic, handler))
        try:
            await self._follow_known()
            await self._check()
        except Unreachable as e:
            log.warning("the database is unavailable; hosts are followed again when it is back", why=e.message)
        self._tasks.append(asyncio.create_task(self._snapshot.run(), name="vms"))
        for name, seconds, work in (
            ("list-vms", LIST_EVERY_S, self._list),
            ("progress", STORE_PROGRESS_EVERY_S, self._copies.store),
            ("check-vms", CHECK_EVERY_S, self._check),
            ("tidy", TIDY_EVERY_S, self.tidy),
            ("known-hosts", TIDY_EVERY_S, self._follow_known),
            ("dead-hosts", TIDY_EVERY_S, self._deaths.notify_again),
        ):
            self._tasks.append(asyncio.create_task(self._every(seconds, work), name=name))

    async def stop(self) -> None:
        """Stop listening and looking."""
        for subscription in self._subscriptions:
            await subscription.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._revoking.stop()
        await self._snapshot.stop()

    def look(self, host: str) -> None:
        """There may be something new in this host's journal."""
        self._follow(host)
        self._wanted[host].set()

    async def tidy(self) -> None:
        """End requests that no source accepted, once the source has promised that it never will."""
        now_ms, queued, due = self._clock.monotonic_ms(), {}, list[MigrationRecord]()
        for record in await under_way(self._fleet, (Status.QUEUED,)):
            since_ms = queued[record.id] = self._queued.get(record.id, now_ms)
            old = now_ms - since_ms > GIVE_UP_AFTER_MS
            if old and not record.accepted and self._registry.answers(record.migration.source):
                due.append(record)
        self._queued = queued
        await all_of(self._try_to_end(record) for record in due)

    async def _try_to_end(self, record: MigrationRecord) -> None:
        """Each by itself: one that cannot be ended keeps no other from its end."""
        try:
            with own_cancellation_only():
                async with asyncio.timeout(END_S):
                    await self._end_request(record)
        except TimeoutError:
            why = f"{record.migration.source} has not answered within {END_S:g} s"
            log.info("a request that no agent accepted is closed later", migration=record.id, why=why)
        except SternaError as e:
            log.info("a request that no agent accepted is closed later", migration=record.id, why=e.message)
        except Exception:
            log.exception("a request that no agent accepted cannot be closed", migration=record.id)

    async def _end_request(self, record: MigrationRecord) -> None:
        source = record.migration.source
        # it may still be checking: what is reported as failed must not begin afterwards
        await ask_source(self._calls, record, "decline_migration", {})
        read = await self._projector.pull(source)  # if the journal has it, the record shows it afterwards
        if read.more:
            raise Temporary(f"the journal of {source} has not been read to its end")
        reason = f"{source} never accepted it"
        await self._fleet.settle(record.id, Status.FAILED, reason, self._clock.now().isoformat())

    # ------------------------------------------------------------ hints

    async def _on_beacon(self, topic: str, data: Data) -> None:
        host = topic.removeprefix("host.")
        self._revoking.heard(host, data.get("revoked"))  # also while the database is away
        try:
            facts = await self._registry.beacon(topic, data)
        except SternaError as e:  # the database is away; the next beacon comes in a second
            log.info("beacon not stored", topic=topic, error=e.message)
            return
        if facts is not None:
            self._follow(facts.name)
            self._snapshot.heard(facts.name, data)
        if host in self._wanted and self._registry.journal_end(host) != self._read_to.get(host):
            self._wanted[host].set()

    async def _on_journal(self, topic: str, data: Data) -> None:
        host = topic.removeprefix("journal.")
        if host in self._wanted:
            self._wanted[host].set()

    async def _on_progress(self, topic: str, data: Data) -> None:
        _, host, migration_id = topic.split(".", 2)
        try:
            await self._copies.sampled(host, migration_id, data)
        except ValidationError as e:
            raise BadRequest(f"progress that cannot be read: {e.errors(include_input=False)[0]['msg']}") from e
        except SternaError as e:
            log.info("progress hint cannot be taken", topic=topic, error=str(e))

    # ------------------------------------------------------------ looking

    async def _follow_known(self) -> None:
        """Also those whose agents cannot describe them: their beacons have no description of the host, but their
        journals can be read."""
        for host in await self._fleet.hosts():
            self._follow(host.name)

    def _follow(self, host: str) -> None:
        if host not in self._wanted:
            self._wanted[host] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._read(host), name=f"follow-{host}"))

    async def _read(self, host: str) -> None:
        wanted, last_error = self._wanted[host], ""
        while True:
            wanted.clear()
            answers, end = self._registry.answers(host), self._registry.journal_end(host)
            if answers:  # a journal can be read without libvirtd
                last_error = await self._pull(host, last_error)
                if last_error == MORE:
                    await asyncio.sleep(READ_ON_S)
                    continue
                if not last_error:
                    self._read_to[host] = end
            with contextlib.suppress(TimeoutError):  # wait_for may swallow a cancellation (CPython 3.11)
                async with asyncio.timeout(READ_ANYWAY_S if answers and not last_error else PULL_AGAIN_S):
                    await wanted.wait()

    async def _pull(self, host: str, last_error: str) -> str:
        """Read the journal; what went wrong ('' if nothing), logged once and not each time. MORE: it goes on."""
        try:
            with own_cancellation_only():
                return MORE if (await self._projector.pull(host)).more else ""
        except (SternaError, ValidationError) as e:
            if str(e) != last_error:
                log.warning("a host's journal cannot be read now", host=host, error=str(e))
            return str(e)
        except Exception:
            log.exception("reading a host's journal failed", host=host)
            return "unexpected"

    async def _list(self) -> None:
        await self._inventory.refresh()

    async def _check(self) -> None:
        await self._snapshot.check(CHECK_EVERY_S)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                with own_cancellation_only():
                    await work()
            except SternaError as e:
                log.info("background work failed and will be retried", error=e.message)
            except Exception:
                log.exception("background work failed")
