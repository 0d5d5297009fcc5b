"""All simulated hosts of a fleet, in one process and on one connection to the bus."""

from __future__ import annotations

import asyncio
import random

import structlog

from bench.fleetsim.answers import Answers
from bench.fleetsim.host import SimHost
from bench.fleetsim.links import Links
from bench.fleetsim.made import Made
from bench.fleetsim.outgoing import TICK_S, Outgoing
from bench.fleetsim.truth import Truth
from sterna.domain.journal import Migration, Role
from sterna.ports.bus import Bus
from sterna.ports.clock import Clock

FLUSH_EVERY = 3
"""Ticks."""
BEATS = 10
"""Each host beats once in so many ticks: they do not beat in step."""

log = structlog.get_logger(__name__)


class Crowd:
    """The hosts."""

    def __init__(
        self, bus: Bus, made: Made, clock: Clock, seed: int = 1, stream_bytes_s: float = float("inf")
    ) -> None:
        """`stream_bytes_s`: what one copy reaches on an idle link."""
        self.clock, self.compress, self.stream_bytes_s = clock, made.size.compress, stream_bytes_s
        self.truth = Truth(made, lambda: clock.monotonic_ms() / 1000)
        self.links = Links({host.name: host.link_bytes_s for host in made.hosts.values()})
        self.hosts = {
            host.name: SimHost(host, number, bus, self.truth, clock)
            for number, host in enumerate(made.hosts.values(), start=1)
        }
        self.calls: dict[str, int] = {}
        """Requests of controllers so far, by method."""
        self.refused: dict[str, int] = {}
        """Refusals so far, by code."""
        self.longest_tick_s = 0.0
        """The longest time between two ticks, which should be TICK_S: more on a machine that is too busy."""
        self._rng = random.Random(seed)  # noqa: S311
        self._ticking: asyncio.Task[None] | None = None

    def about(self, seconds: float) -> float:
        """More or less so long."""
        return seconds * self._rng.uniform(0.8, 1.2)

    async def start(self) -> None:
        """All hosts have power."""
        for host in self.hosts.values():
            await self._serve(host)
        self._ticking = asyncio.create_task(self._tick_for_ever(), name="ticks")

    async def stop(self) -> None:
        """Nothing happens any more."""
        tasks = [task for host in self.hosts.values() for task in host.tasks.values()]
        if self._ticking is not None:
            tasks.append(self._ticking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in self.hosts.values():
            if host.server is not None:
                await host.server.stop()

    async def _serve(self, host: SimHost) -> None:
        server = host.new_life()
        Answers(self, host).register(server)
        await server.start()

    # ------------------------------------------------------------ power

    async def power_off(self, name: str, why: str) -> None:
        """The host is gone at once, with all that runs there."""
        host = self.hosts[name]
        host.bus.alive = False
        for outgoing in list(host.outgoing.values()):
            if outgoing.status == "post-copy":
                self.truth.release(outgoing.target.name, outgoing.migration.vm_uuid, "lost in post-copy")
        tasks = list(host.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for copy in [copy for copy in self.links.copies if name in (copy.source, copy.target)]:
            self.links.end(copy)
        self.truth.power_off(name, why)
        if host.server is not None:
            await host.server.stop()

    async def power_on(self, name: str) -> None:
        """It is back: its agent goes on with what its journal has."""
        host = self.hosts[name]
        self.truth.power_on(name)
        await self._serve(host)
        for half in host.journal.open():
            if half.role is Role.SOURCE:
                self.drive(host, half.migration, resumed=True)

    def drive(self, host: SimHost, migration: Migration, *, resumed: bool = False) -> None:
        """Carry a migration out."""
        outgoing = host.outgoing[migration.id] = Outgoing(self, host, migration, resumed=resumed)
        task = host.tasks[migration.id] = asyncio.create_task(outgoing.run(), name=f"migration-{migration.id}")
        task.add_done_callback(lambda done: self._ended(host, migration.id, done))

    def _ended(self, host: SimHost, id: str, task: asyncio.Task[None]) -> None:
        host.tasks.pop(id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a simulated migration failed", migration=id, exc_info=error)

    # ------------------------------------------------------------ time

    async def _tick_for_ever(self) -> None:
        everyone, tick, last_ms = list(self.hosts.values()), 0, self.clock.monotonic_ms()
        while True:
            now_ms = self.clock.monotonic_ms()
            self.longest_tick_s = max(self.longest_tick_s, (now_ms - last_ms) / 1000)
            self.links.advance((now_ms - last_ms) / 1000)
            last_ms = now_ms
            for host in everyone[tick % BEATS :: BEATS]:
                if host.alive:
                    await host.beat()
            if tick % FLUSH_EVERY == 0:
                for host in everyone:
                    if host.alive and (host.to_hint or host.to_list):
                        await host.flush()
            tick += 1
            await self.clock.sleep(max(0.01, TICK_S - (self.clock.monotonic_ms() - now_ms) / 1000))
