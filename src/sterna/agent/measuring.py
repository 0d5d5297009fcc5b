"""What a running guest does to its memory, for `sterna plan`. Changes nothing; never during a migration of it."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.copying import GuestLoad
from sterna.domain.errors import BadRequest, Conflict, Permanent
from sterna.domain.model import Data
from sterna.ports.clock import Clock
from sterna.ports.hypervisor import Load, Observations
from sterna.ports.records import Journal
from sterna.rpc.envelope import Request

WINDOWS_S = (1, 4)
"""A short and a long look, in seconds: a guest that dirties the same pages again shows in the difference. libvirt's
shortest is 1; five in all is short enough for a person who waits."""
LOOK_AGAIN_S = 0.2
LATE_S = 5.0
"""How long a measurement may take beyond its window."""


class Measurable(Observations, Load, Protocol):
    """What is asked of this host's hypervisor."""


class Measuring:
    """The source agent's method `measure_load`."""

    def __init__(self, hypervisor: Measurable, journal: Journal, clock: Clock) -> None:
        self._hypervisor, self._journal, self._clock = hypervisor, journal, clock

    async def measure_load(self, request: Request) -> Data:
        """`measure_load {vm}`: one measurement per window.

        Raises NotFound; Conflict where the VM is in a migration; Permanent where libvirt cannot measure it.
        """
        uuid = request.params.get("vm")
        if not isinstance(uuid, str) or not uuid:
            raise BadRequest("measure_load needs 'vm', a UUID")
        holder = self._journal.holder(uuid)
        if holder is not None or (await self._hypervisor.observe(uuid)).job_active:
            # It would disturb the copy, and measure the copy's own doing (kubevirt#17504).
            raise Conflict("a VM in a migration is not measured", fix="try again when it has ended")
        found = [await self._measure(uuid, seconds) for seconds in WINDOWS_S]
        return {"windows": [load.model_dump(mode="json") for load in found]}

    async def _measure(self, uuid: str, seconds: int) -> GuestLoad:
        clock, hypervisor = self._clock, self._hypervisor
        await hypervisor.measure_load(uuid, seconds)
        until = clock.monotonic_ms() + (seconds + LATE_S) * 1000
        await clock.sleep(seconds)
        while (load := await hypervisor.load(uuid)) is None or load.period_s != seconds:
            if clock.monotonic_ms() > until:
                raise Permanent(f"libvirt did not measure the guest within {seconds + LATE_S:g} s")
            await clock.sleep(LOOK_AGAIN_S)
        return load
