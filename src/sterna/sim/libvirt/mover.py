"""`ports.hypervisor.Mover` of a simulated host: the copy of a running guest, source side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from sterna.domain.copying import CopyPlan, JobSample
from sterna.domain.departure import IN_POSTCOPY
from sterna.domain.errors import Conflict, Permanent, Unknown
from sterna.domain.journal import leaps
from sterna.domain.whereabouts import POSTCOPY
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.libvirt import admission, qemu
from sterna.sim.libvirt.part import SimPart, ask


class SimMover(SimPart):
    """The copy."""

    async def mark(self, uuid: str, migration_id: str, epoch: int) -> None:
        """Write the epoch into both definitions. Raises Conflict during a copy and for an older epoch."""
        domain = self._require(await self._called(), uuid)
        present = domain.definition.epoch
        if present is not None and present > epoch and not leaps(present, epoch - 1):
            raise Conflict(f"the domain carries epoch {present}, newer than {epoch}")
        if domain.job is not None:
            raise Conflict("the epoch cannot be written while libvirt migrates the guest")
        if domain.live is not None:
            domain.live = replace(domain.live, epoch=epoch)
        if domain.inactive is not None:
            domain.inactive = replace(domain.inactive, epoch=epoch)
        domain.ran = domain.running
        self._world.tell(self._host.name, "domain", uuid, f"marked with epoch {epoch} for {migration_id}")

    async def interlock(self, uuid: str, epoch: int) -> None:
        """From the hand-over on this host's guest cannot run again. Raises NotFound, Conflict, Permanent."""
        domain = self._require(await self._called(), uuid)
        self._check_epoch(domain, epoch)
        if not domain.active:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        if domain.job is not None:
            raise Conflict("the interlock cannot be set while libvirt migrates the guest")
        self._set_interlock(domain, True)

    async def migrate(self, uuid: str, plan: CopyPlan) -> None:
        """Run the copy to its end; it goes on if the caller is cancelled.

        Raises Permanent if it cannot even be asked for, Unknown on any libvirt error.
        """
        here = await self._called()
        try:
            copy = admission.begin(self._world, here, self._require(here, uuid), plan)
        except qemu.LibvirtSays as refusal:
            raise Unknown(str(refusal)) from refusal
        await copy.wait()
        if copy.error is not None:
            raise Unknown(copy.error)

    async def sent(self, uuid: str) -> str:
        """The last stream that the guest's QEMU has sent whole. Raises NotFound, Permanent, Unreachable."""
        domain = self._require(await self._called(), uuid)
        if not domain.active:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        in_postcopy = domain.job is not None and domain.job.sender == self._host.name and domain.reason in POSTCOPY
        return IN_POSTCOPY if in_postcopy else domain.sent

    async def sample(self, uuid: str) -> JobSample | None:
        """Statistics of the copy this host sends; None where there is none."""
        job = self._job(await self._called(), uuid)
        return job.sample() if job is not None and job.sender == self._host.name else None

    async def abort(self, uuid: str) -> None:
        """Give the running copy up. No job is not an error."""
        job = self._job(await self._called(), uuid)
        if job is not None:
            job.abort()

    async def set_max_downtime(self, uuid: str, ms: int) -> None:
        """See ports.hypervisor.Mover.set_max_downtime."""
        domain = self._require(await self._called(), uuid)
        if not domain.active:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        domain.max_downtime_ms = ms
        if domain.job is not None:
            domain.job.set_max_downtime(ms)

    async def set_bandwidth(self, uuid: str, bytes_s: int | None) -> None:
        """See ports.hypervisor.Mover.set_bandwidth."""
        here = await self._called()
        self._require(here, uuid)
        job = self._job(here, uuid)
        if job is None:
            raise Permanent("libvirt copies nothing of this guest now")
        job.set_bandwidth(bytes_s)

    async def switch_to_postcopy(self, uuid: str) -> None:
        """Let the guest run on the destination now. Raises Permanent while libvirt cannot."""
        job = self._job(await self._called(), uuid)
        if job is None:
            raise Permanent("libvirt refused: there is no migration under way")
        ask(job.switch)

    async def send_again(self, uuid: str, uri: str) -> None:
        """Source: join the destination's half."""
        job = self._job(await self._called(), uuid)
        if job is None:
            raise Permanent("QEMU refused: there is no migration under way")
        ask(job.join)

    def events(self, uuid: str) -> AbstractAsyncContextManager[AsyncIterator[GuestEvent]]:
        """Events of one guest on this host. Raises Unreachable on entry, or on iteration once libvirtd is gone."""
        return self._subscribed(uuid)

    @asynccontextmanager
    async def _subscribed(self, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        here = await self._called()
        async with self._world.events.subscribe(here.name, uuid) as feed:
            yield feed
