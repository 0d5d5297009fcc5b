"""How the bytes of a simulated copy go out: at a rate that may be changed, until something stops them.

The other half of `copying.SimCopy`: what libvirt lets one change while QEMU copies.
"""

from __future__ import annotations

import asyncio

from sterna.domain.convergence import THROTTLE_FIRST, THROTTLE_MOST, THROTTLE_STEP
from sterna.domain.copying import CopyPlan
from sterna.sim.world.things import Phase
from sterna.sim.world.world import World


class Sending:
    """The stream. The rest of the copy, and these names, are `SimCopy`'s."""

    world: World
    plan: CopyPlan
    phase: Phase
    iteration: int
    bandwidth: int
    max_downtime_ms: float
    _disk_done: int
    _processed: int
    _sending: int
    _stage_ms: float

    def __init__(self) -> None:
        super().__init__()
        self._retimed = asyncio.Event()
        self._counts_again = asyncio.Event()
        self.throttle = self._high = 0

    def _live(self) -> None:
        raise NotImplementedError

    def set_bandwidth(self, bytes_s: int | None) -> None:
        """`virsh migrate-setspeed`: what has been sent is sent, the rest goes at the new rate."""
        self._take_stock()
        self.bandwidth = min(bytes_s or self.world.pace.bandwidth_bytes, self.world.pace.bandwidth_bytes)
        self._retimed.set()

    def set_max_downtime(self, ms: int) -> None:
        """`virsh migrate-setmaxdowntime`: QEMU counts the dirty pages at once if what is left fits now."""
        self.max_downtime_ms = ms
        self._take_stock()
        if self.phase is Phase.COPYING and self.iteration and self._ms_for(self._sending) <= ms:
            self._counts_again.set()
        self._retimed.set()

    def _auto_converge(self, dirtied: int, sent: int) -> None:
        """QEMU slows the guest every second pass that dirtied more than half of what it sent."""
        if "AUTO_CONVERGE" not in self.plan.flags or dirtied * 2 <= sent:
            return
        self._high += 1
        if self._high % 2 == 0:
            self.throttle = min(THROTTLE_MOST, self.throttle + THROTTLE_STEP if self.throttle else THROTTLE_FIRST)

    async def _send(self, amount: int) -> float:
        took_ms, _ = await self._send_until(amount, asyncio.Event())
        return took_ms

    async def _send_until(self, amount: int, stop: asyncio.Event) -> tuple[float, int]:
        """Send until all is sent or `stop` is set: ms it took, bytes that are left."""
        began = self._stage_ms = self.world.clock.monotonic_ms()
        self._sending, done = amount, False
        while not done and not stop.is_set():  # again at each change of the bandwidth
            self._retimed.clear()
            done = await self._slept(max(self._ms_for(self._sending), 1.0), stop)
        if done:
            self._processed, self._sending = self._processed + self._sending, 0
        else:
            self._take_stock()
        return self.world.clock.monotonic_ms() - began, self._sending

    async def _slept(self, ms: float, stop: asyncio.Event) -> bool:
        """True after that time; False if `stop` or another bandwidth came first."""
        sleeping = asyncio.ensure_future(self.world.clock.sleep(ms / 1000))
        others = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._retimed.wait())]
        try:
            await asyncio.wait({sleeping, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (sleeping, *others):
                waiting.cancel()
        self._live()
        return sleeping.done() and not sleeping.cancelled()

    def _take_stock(self) -> None:
        """What went out of this stage until now is out."""
        now = self.world.clock.monotonic_ms()
        if now < self._stage_ms:
            return  # nothing goes out of a broken stream
        sent = min(self._sending, int((now - self._stage_ms) / 1000 * self.bandwidth))
        if self.phase is Phase.COPYING and self.iteration == 0:
            self._disk_done += sent
        else:
            self._processed += sent
        self._sending, self._stage_ms = self._sending - sent, now

    def _ms_for(self, amount: int) -> float:
        return amount / self.bandwidth * 1000
