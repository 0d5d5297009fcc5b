"""The Hypervisor port on a simulated host, with libvirt's real shape: its states, its refusals, its words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from sterna.domain.claims import Claim
from sterna.domain.errors import Conflict, NotFound, Permanent, Unknown, Unreachable
from sterna.domain.jobs import job_refusal
from sterna.domain.journal import leaps
from sterna.domain.model import (
    CompletedJob,
    CopyPlan,
    GuestLoad,
    GuestState,
    HostFacts,
    JobSample,
    Nic,
    Observation,
    Refusal,
    Vm,
    VmSummary,
)
from sterna.domain.whereabouts import BROKEN_POSTCOPY, POSTCOPY
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.libvirt import admission, checks, devices, evidence, qemu
from sterna.sim.libvirt.describe import claims_of, describe
from sterna.sim.libvirt.keyring import SimKeyring
from sterna.sim.libvirt.rendering import incoming_definition
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Job, SimDomain
from sterna.sim.world.world import World


class SimHypervisor(SimKeyring):
    """One simulated host's hypervisor (ports.hypervisor.Hypervisor). Each call takes `Pace.call_ms`.

    Make a new one for each life of an agent: it remembers which guests it has seen running.
    """

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]
        self._memory = evidence.Memory(world, host)

    # -- Inventory -----------------------------------------------------------------------------------------

    async def host(self) -> HostFacts:
        """See ports.hypervisor.Inventory.host."""
        here = await self._called()
        return HostFacts(
            name=here.name,
            host_uuid=here.host_uuid,
            address=here.address,
            libvirt_version=here.libvirt_version,
            qemu_version=here.qemu_version,
            memory_total_bytes=here.memory_bytes,
            memory_free_bytes=here.memory_free_bytes,
            cpus=here.cpus,
            initiator=here.initiator,
            instances_dir=here.instances_dir,
            disk_free_bytes=here.folder(here.instances_dir).free_bytes,
            maintenance=here.maintenance,
            abilities=here.abilities.model_copy(update={"userfaultfd": here.userfaultfd}),
        )

    async def vms(self) -> list[VmSummary]:
        """Every domain, running or not."""
        here = await self._called()
        return [
            VmSummary(
                uuid=d.uuid,
                name=d.definition.name,
                state=d.state,
                memory_bytes=d.definition.memory_bytes,
                vcpus=d.definition.vcpus,
            )
            for d in here.domains.values()
        ]

    async def vm(self, name_or_uuid: str) -> Vm:
        """One VM. Raises NotFound."""
        here = await self._called()
        found = [d for d in here.domains.values() if name_or_uuid in (d.uuid, d.definition.name)]
        if not found:
            raise NotFound(f"{here.name}: Domain not found: no domain with matching name or UUID '{name_or_uuid}'")
        return describe(here, found[0])

    async def observe(self, uuid: str) -> Observation:
        """What this libvirt says of the guest now."""
        return self._look(uuid, (await self._called()).domains.get(uuid))

    async def claims(self, besides: str = "") -> tuple[Claim, ...]:
        """What its domains name."""
        here = await self._called()
        return tuple(claim for d in here.domains.values() if d.uuid != besides for claim in claims_of(d))

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """Everything this hypervisor has against running `vm`."""
        return list(checks.refusals(await self._called(), vm))

    async def check_outgoing(self, uuid: str) -> list[Refusal]:
        """See ports.hypervisor.Inventory.check_outgoing."""
        domain = self._require(await self._called(), uuid)
        jobs = [job_refusal(domain.definition.name, "migration-out")] if domain.job is not None else []
        return [*jobs, *domain.against]

    async def listens_for(self, vm: Vm) -> dict[str, str]:
        """Its guests listen nowhere."""
        return {}

    async def taken_for_local(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """See ports.hypervisor.Inventory.taken_for_local."""
        here = await self._called()
        return tuple(path for path in paths if not here.takes_for_shared(path))

    async def host_cpu(self, vm: Vm) -> str:
        """The host's `cpu`, for guests that see it."""
        here = await self._called()
        return here.cpu if "host-passthrough" in vm.cpu_xml else ""

    async def compare_cpu(self, vm: Vm, cpu: str) -> list[Refusal]:
        """Another word is another CPU."""
        here = await self._called()
        if here.cpu == cpu:
            return []
        return [Refusal(code="cpu-not-the-same", message=f"{here.name} has a {here.cpu}", fix="--accept cpu")]

    async def measure_load(self, uuid: str, seconds: int) -> None:
        """Measured at once: the simulation knows."""
        domain = self._require(await self._called(), uuid)
        if not domain.running:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        guest = self._world.guests[uuid]
        dirty = min(guest.working_set_bytes, guest.dirty_bytes_per_s * seconds)
        domain.load = GuestLoad(dirty_bytes=dirty, period_s=seconds, allocated_bytes=domain.definition.memory_bytes)

    async def load(self, uuid: str) -> GuestLoad | None:
        """See ports.hypervisor.Inventory.load."""
        domain = self._require(await self._called(), uuid)
        if not domain.active:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        return domain.load

    async def check_postcopy(self) -> list[Refusal]:
        """Why no guest could arrive here by post-copy."""
        here = await self._called()
        if here.userfaultfd:
            return []
        message = f"{here.name}'s kernel does not let QEMU handle page faults, as post-copy needs it"
        return [Refusal(code="postcopy-impossible", message=message, fix="sysctl vm.unprivileged_userfaultfd=1")]

    async def definition_for(self, uuid: str, plan: CopyPlan) -> str:
        """The incoming definition, as text nobody but `check_definition` reads."""
        domain = self._require(await self._called(), uuid)
        if domain.live is None:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        return repr(incoming_definition(domain.live, plan))

    async def definition_without_devices(self, uuid: str) -> str:
        """What its libvirt cannot translate is of the guest's disks and NICs."""
        self._require(await self._called(), uuid)
        return ""

    async def check_definition(self, xml: str) -> list[Refusal]:
        """See ports.hypervisor.Inventory.check_definition."""
        here = await self._called()
        found = [word for word in sorted(here.untranslatable) if word in xml]
        message = f"{here.name}'s libvirt cannot start it: unsupported configuration: {', '.join(found)}"
        fix = "see what its libvirt or QEMU lacks"
        return [Refusal(code="definition-refused", message=message, fix=fix)] if found else []

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """Can this libvirtd dial the other?"""
        try:
            admission.dial(self._world, await self._called(), destination_uri)
        except qemu.LibvirtSays as refusal:
            return Refusal(
                code="peer-unreachable",
                message=f"{self._host.name} cannot reach {destination_uri}: {refusal}",
                fix="see that libvirtd listens there and that the path between the hosts is open",
            )
        return None

    # -- Mover ---------------------------------------------------------------------------------------------

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

    async def sample(self, uuid: str) -> JobSample | None:
        """Statistics of the copy this host sends; None where there is none."""
        job = self._job(await self._called(), uuid)
        return job.sample() if job is not None and job.sender == self._host.name else None

    async def abort(self, uuid: str) -> None:
        """Give the running copy up. No job is no error."""
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
        _ask(job.switch)

    async def send_again(self, uuid: str, uri: str) -> None:
        """Source: join the destination's half."""
        job = self._job(await self._called(), uuid)
        if job is None:
            raise Permanent("QEMU refused: there is no migration under way")
        _ask(job.join)

    def events(self, uuid: str) -> AbstractAsyncContextManager[AsyncIterator[GuestEvent]]:
        """Events of one guest on this host. Raises Unreachable on entry, or on iteration once libvirtd is gone."""
        return self._subscribed(uuid)

    @asynccontextmanager
    async def _subscribed(self, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        here = await self._called()
        async with self._world.events.subscribe(here.name, uuid) as feed:
            yield feed

    # -- Custodian -----------------------------------------------------------------------------------------

    async def end_incoming(self, uuid: str, epoch: int) -> bool:
        """R0: end a guest that waits here for its memory and never ran."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        seen = self._look(uuid, domain)
        if seen.state is not GuestState.PAUSED or seen.ran:
            raise Conflict(f"the guest is {seen.state} ({seen.reason}) and has run here: not ended")
        self._destroy(domain)
        return True

    async def end_leftover(self, uuid: str, epoch: int) -> bool:
        """End the source's paused copy after the guest has arrived elsewhere."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        if domain.state is not GuestState.PAUSED or domain.incoming:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): no leftover of a migration")
        self._destroy(domain)
        return True

    async def hold(self, uuid: str, epoch: int) -> None:
        """Stop the vCPUs of the source's old copy. Paused is success. Raises NotFound, Conflict."""
        domain = self._require(await self._called(), uuid)
        self._check_epoch(domain, epoch)
        if not domain.active:
            raise Conflict("the guest has no QEMU here: there is nothing to hold")
        if domain.running:
            qemu.pause(self._world, self._host, domain, reason="user", event="suspended")

    async def resume(self, uuid: str, epoch: int) -> None:
        """Let a guest paused by a failed migration run on. Raises NotFound, Conflict."""
        domain = self._require(await self._called(), uuid)
        self._check_epoch(domain, epoch)
        if domain.running:
            return
        if not domain.active:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): Sterna starts no guest anew")
        if domain.reason in POSTCOPY:
            raise Conflict("the guest was sent away in post-copy: it runs nowhere but on the destination")
        if domain.job is not None:
            raise Conflict(f"libvirt is still migrating the guest ({domain.reason})")
        self._set_interlock(domain, False)
        qemu.run(self._world, self._host, domain, reason="unpaused", event="resumed", detail="unpaused")

    async def release_interlock(self, uuid: str, epoch: int) -> None:
        """Take the interlock away. Missing, or no QEMU, is success. Raises Conflict."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return
        self._check_epoch(domain, epoch)
        if domain.job is not None:
            raise Conflict(f"libvirt is still migrating the guest ({domain.reason})")
        self._set_interlock(domain, False)

    async def interlocked(self, uuid: str) -> bool:
        """Is it set?"""
        domain = (await self._called()).domains.get(uuid)
        return domain is not None and domain.interlocked

    async def undefine(self, uuid: str, epoch: int | None, *, remove: tuple[str, ...] = ()) -> bool:
        """F10, R5: forget an inactive domain, with the state in `remove`."""
        here = await self._called()
        domain = here.domains.get(uuid)
        if domain is None:
            self._memory.forget(uuid)
            return False
        if domain.active:
            raise Conflict(f"{here.name}: guest {uuid} is active ({domain.state}): not undefined")
        if epoch is not None:
            self._check_epoch(domain, epoch)
        del here.domains[uuid]
        self._world.tell(here.name, "domain", uuid, "undefined")
        for state in domain.definition.firmware:
            if state.kind in remove:
                self._world.remove_file(here.name, state.path)
        self._world.emit(here, uuid, "undefined", "removed")
        return True

    async def listen_again(self, uuid: str, epoch: int, address: str) -> str:
        """Destination: wait for the source's half; the URI. Raises Conflict, Permanent."""
        here = await self._called()
        domain = self._require(here, uuid)
        self._check_epoch(domain, epoch)
        job = domain.job
        if job is None or domain.incoming:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): not in post-copy")
        if not domain.held:
            raise Unreachable(f"{here.name}: nobody holds the guest's second monitor")
        _ask(job.listen)
        return f"tcp:{address}:49152"

    async def end_lost(self, uuid: str, epoch: int) -> bool:
        """End what is left of a guest whose other half is gone. Raises Conflict."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        if domain.reason != BROKEN_POSTCOPY:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): not lost in post-copy")
        self._destroy(domain)
        return True

    async def open_recovery(self, uuid: str) -> None:
        """Hold the second monitor, if there is one. Raises Unreachable where its QEMU no longer lets anybody in."""
        here = await self._called()
        domain = here.domains.get(uuid)
        if domain is None or not domain.active or uuid not in here.recovery_monitors or domain.held:
            return
        if domain.reason in POSTCOPY:  # QEMU's main thread may stand still by now: the worst case is simulated
            raise Unreachable(f"{here.name}: the guest's second monitor does not open")
        domain.held = True

    async def close_recovery(self, uuid: str) -> None:
        """Take away the second monitor, if there is one."""
        self._host.recovery_monitors.discard(uuid)

    async def detach_nic(self, uuid: str, nic: Nic) -> None:
        """See ports.hypervisor.Devices."""
        await self._called()
        devices.detach_nic(self._world, self._host.name, uuid, nic)

    async def attach_nic(self, uuid: str, nic: Nic) -> None:
        """See ports.hypervisor.Devices."""
        await self._called()
        devices.attach_nic(self._world, self._host.name, uuid, nic)

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Set or clear autostart; a transient domain is left alone."""
        domain = self._require(await self._called(), uuid)
        if domain.inactive is not None and domain.autostart != on:
            domain.autostart = on
            self._world.tell(self._host.name, "domain", uuid, f"autostart {'on' if on else 'off'}")

    async def end_exports(self, uuid: str) -> tuple[str, ...]:
        """What the guest's QEMU offers over NBD is offered no more, unless a job is under way."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or domain.job is not None or not domain.exports:
            return ()
        ended, domain.exports = domain.exports, ()
        self._world.tell(self._host.name, "domain", uuid, "exports ended")
        return ended

    async def completed_job(self, uuid: str) -> CompletedJob | None:
        """Statistics of the guest's last finished migration as this host saw it."""
        domain = (await self._called()).domains.get(uuid)
        return domain.completed if domain is not None else None

    # -- details -------------------------------------------------------------------------------------------

    async def _called(self) -> SimHost:
        """Reach libvirtd, which takes its time. Raises Unreachable before or after."""
        self._host.require_libvirtd()
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        self._host.require_libvirtd()
        return self._host

    def _require(self, here: SimHost, uuid: str) -> SimDomain:
        if uuid not in here.domains:
            raise NotFound(f"{here.name}: Domain not found: no domain with matching uuid '{uuid}'")
        return here.domains[uuid]

    def _look(self, uuid: str, domain: SimDomain | None) -> Observation:
        return evidence.observe(domain, seen_running=self._memory.saw(uuid))

    def _job(self, here: SimHost, uuid: str) -> Job | None:
        domain = here.domains.get(uuid)
        return domain.job if domain is not None else None

    def _check_epoch(self, domain: SimDomain, epoch: int) -> None:
        if domain.definition.epoch != epoch:
            raise Conflict(
                f"{self._host.name}: guest {domain.uuid} carries epoch {domain.definition.epoch}, not {epoch}"
            )

    def _set_interlock(self, domain: SimDomain, on: bool) -> None:
        if domain.interlocked != on:
            domain.interlocked = on
            self._world.tell(self._host.name, "domain", domain.uuid, f"interlock {'set' if on else 'released'}")

    def _destroy(self, domain: SimDomain) -> None:
        qemu.end(self._world, self._host, domain, reason="destroyed", event="stopped", detail="destroyed")


def _ask(act: Callable[[], None]) -> None:
    """libvirt's refusal in our words."""
    try:
        act()
    except qemu.LibvirtSays as refusal:
        raise Permanent(f"libvirt refused: {refusal}") from refusal
