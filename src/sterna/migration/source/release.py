"""Phase 3 on the source, F1-F5, F10 and F11: the guest is the destination's, and this host releases its resources.
Every step is retried until it succeeds.
"""

from __future__ import annotations

import structlog

from sterna.domain.entries.base import Done, NoPlan
from sterna.domain.entries.notes import DestinationReport
from sterna.domain.entries.source import (
    FilesToRemove,
    Released,
    RemainingVolumesDetached,
    VifsRemoved,
    VmRemoved,
    VolumesDetached,
    VolumesFound,
)
from sterna.domain.errors import Permanent, StorageSilent, Temporary, Unreachable
from sterna.domain.journal import Kind
from sterna.domain.model import Disk, DiskKind, GuestState, Nic
from sterna.domain.pauses import words_of
from sterna.domain.plugs import device_name, plug_type
from sterna.domain.status import Status
from sterna.domain.step import Step
from sterna.domain.whereabouts import GONE
from sterna.kit.waiting import within
from sterna.migration import removal
from sterna.migration.context import Context
from sterna.migration.source import definition
from sterna.migration.source.reports import forgotten, wait_report
from sterna.migration.volumes import detach, detach_unless_used, has_lun, of_each, users_of_luns

log = structlog.get_logger(__name__)

CLAIMS_S = 5.0
"""For libvirt to say which VMs of this host use a LUN, while the destination waits."""


class FindVolumes(Step[Context, NoPlan, VolumesFound]):
    """F1: the volumes to disconnect, from P2's snapshot. The status becomes `post-migrating`."""

    row, name = "F1", "find-volumes-to-disconnect"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> VolumesFound:
        """Every disk that was not copied."""
        ctx.set_status(Status.POST_MIGRATING, f"the guest runs on {ctx.migration.destination}")
        disks = ctx.vm_before().disks
        return VolumesFound(disks=tuple(d.target for d in disks if not d.local and d.kind is not DiskKind.EMPTY))


def volumes_to_release(ctx: Context) -> list[Disk]:
    """F1's disks, as the source has them."""
    targets = ctx.history.get(VolumesFound).disks
    return [d for d in ctx.vm_before().disks if d.target in targets]


class DisconnectVolumes(Step[Context, NoPlan, Done]):
    """F2: disconnect them here. From now on the guest cannot be reached on this host."""

    row, name = "F2", "disconnect-volumes"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """All of them."""
        await of_each(ctx.host, volumes_to_release(ctx), lambda volumes, disk: volumes.disconnect(disk))
        return Done()


class DetachVolumes(Step[Context, NoPlan, VolumesDetached]):
    """F3: withdraw this host's attachments at the volume service; storage itself refuses this host then."""

    row, name = "F3", "detach-volumes"

    async def do(self, ctx: Context, plan: NoPlan) -> VolumesDetached:
        """All of them; one that is slow, or refuses, holds up no other. One that another VM here has begun to use
        stays, and is reported.

        Where libvirt does not say who uses them, LUNs stay until it does: the destination's half, which gives the
        guest its network, does not wait for that.
        """
        volumes = volumes_to_release(ctx)
        try:
            users = await within(ctx.clock, CLAIMS_S, users_of_luns(ctx.host, volumes, ctx.vm_uuid))
        except (Unreachable, TimeoutError) as error:
            log.warning("LUNs stay attached until libvirt answers", migration=ctx.migration.id, why=str(error))
            await detach(ctx.host, [disk for disk in volumes if not has_lun(disk)])
            return VolumesDetached(later=tuple(disk.target for disk in volumes if has_lun(disk)))
        return VolumesDetached(kept=await detach_unless_used(ctx.host, volumes, users, ctx.vm_uuid))


class RemoveVifsAtSource(Step[Context, NoPlan, VifsRemoved]):
    """F4: remove the VM's NICs from this host's bridges, whoever made them."""

    row, name = "F4", "remove-vifs-at-source"

    async def do(self, ctx: Context, plan: NoPlan) -> VifsRemoved:
        """libvirt removed its own taps with the guest; those made ahead of it are Sterna's to remove.

        Also the one of a guest that arrived here, ended, and was started again with a tap of libvirt's; and a bare
        tap that a crash in the middle of this left without its port.
        """
        removed = []
        for nic in ctx.vm_before().nics:
            port = await ctx.host.vif.describe(nic)
            # Else gone already. A device of that name that is another VM's by now, `unplug` leaves alone.
            if port is not None and _is_its_own(nic, port) and await ctx.host.vif.unplug(port):
                removed.append(port.device or f"what {nic.mac} was plugged into")
            if plug_type(nic).made_ahead:
                bare = device_name(nic)
                if await ctx.host.vif.unplug(nic.model_copy(update={"device": bare})):
                    removed.append(bare)
        return VifsRemoved(removed=tuple(removed))


def _is_its_own(nic: Nic, port: Nic) -> bool:
    """Is it the device that the guest had at P2, or the one that was made ahead of it? On another bridge, or by
    another name, it is that of a VM with the same MAC."""
    devices = {nic.device, device_name(nic)} if plug_type(nic).made_ahead else {nic.device}
    return (port.port_id, port.bridge, port.parent) == (
        nic.port_id,
        nic.bridge,
        nic.parent,
    ) and port.device in devices


class CastPostLiveMigration(Step[Context, NoPlan, Done]):
    """F5: the destination finishes its half, whenever it is there."""

    row, name = "F5", "cast-post-live-migration"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Into the outbox."""
        ctx.peer.cast("post_live_migration_at_destination", {}, key="F5")
        return Done()


class DetachRemainingVolumes(Step[Context, NoPlan, RemainingVolumesDetached]):
    """The rest of F3: the LUNs that waited for libvirt's answer."""

    name = "detach-remaining-volumes"

    async def do(self, ctx: Context, plan: NoPlan) -> RemainingVolumesDetached:
        """As F3. Raises Unreachable until libvirt answers."""
        later = ctx.history.get(VolumesDetached).later
        volumes = [disk for disk in volumes_to_release(ctx) if disk.target in later]
        users = await users_of_luns(ctx.host, volumes, ctx.vm_uuid)
        return RemainingVolumesDetached(kept=await detach_unless_used(ctx.host, volumes, users, ctx.vm_uuid))


class RemoveVm(Step[Context, FilesToRemove, VmRemoved]):
    """F10: remove the VM's directory, disks and configuration here, after proof that the guest is dhost's."""

    row, name = "F10", "remove-vm-at-source"

    async def plan(self, ctx: Context) -> FilesToRemove:
        """Only what was local to it by this host's journal: the disks that were copied, and their folder."""
        files = tuple(d.path for d in ctx.vm_before().disks if d.local and d.path)
        return FilesToRemove(files=files, directories=await self._directories(ctx))

    async def _directories(self, ctx: Context) -> tuple[str, ...]:
        """The VM's folder here; none where the file system does not say: nothing waits for it."""
        vm = ctx.vm_before()
        try:
            return await ctx.host.storage.directories_of(vm.uuid)
        except (StorageSilent, Permanent) as error:
            log.warning("its folder is not known", vm=vm.name, migration=ctx.migration.id, why=error.message)
            return ()

    async def do(self, ctx: Context, plan: FilesToRemove) -> VmRemoved:
        """Prove, then forget the definition, then remove the files. Raises Temporary while proof is missing.

        A file that turns out to be in use elsewhere is kept, and reported: nothing waits for it. Where the guest
        was on a host that is permanently gone, this may be its last copy: the definition and the disks as they were
        at the switch-over are kept.
        """
        kept = await self._prove(ctx)
        if kept:
            return VmRemoved(kept=dict.fromkeys(plan.files, kept), why=kept)
        vm = ctx.vm_before()
        await definition.keep_if_edited(ctx)
        state, stays = await removal.undefine(ctx, vm, await removal.private_state(ctx, vm))
        known = {d.path: d.identity for d in vm.disks if d.path and d.identity}
        if not plan.directories:  # none, or the file system did not answer: by now it may
            plan = FilesToRemove(files=plan.files, directories=await self._directories(ctx))
        await removal.remove_outputs(ctx, vm, plan.directories)
        removed = await removal.remove(ctx, plan, known)
        kept_files = removed.kept | stays
        for path, why in kept_files.items():
            log.warning("not removed", path=path, why=why, vm=vm.name, migration=ctx.migration.id)
        return VmRemoved(removed=removed.removed, kept=kept_files, state=state)

    async def _prove(self, ctx: Context) -> str:
        """'' once it is proven; why everything is kept, where the other host is gone or has lost the guest."""
        here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        if here.state not in GONE:
            raise Temporary(f"the guest is {here.state} on {ctx.host.name}: nothing is removed")
        # That it ran over there was proven by both hypervisors at M5 and is in the journal; by now it may have
        # ended there, or moved on to a third host. Only a destination that cannot be asked is waited for.
        there = await ctx.observe_there()
        if there.state is GuestState.UNKNOWN and ctx.peer_fenced:
            why = f"the guest was on {ctx.migration.destination} when that host died"
            ctx.write_off("completed", why)
            return why
        if ctx.written_off is not None and ctx.written_off.outcome != "completed":
            return f"this host was declared dead, and {ctx.written_off.why} on {ctx.migration.destination}"
        if there.state is GuestState.UNKNOWN:
            raise Temporary(f"{ctx.migration.destination} cannot be asked about the guest: {there.reason}")
        return ""


class ReleaseResources(Step[Context, NoPlan, Released]):
    """F11: release the VM's resources here. The migration is complete on the source."""

    row, name = "F11", "release-resources"

    async def do(self, ctx: Context, plan: NoPlan) -> Released:
        """The VM's lock here; what this host has free now."""
        facts = await ctx.host.hypervisor.host()
        ctx.write(Kind.RELEASED, row="F11")
        return Released(memory_free_bytes=facts.memory_free_bytes)


class AwaitDestination(Step[Context, NoPlan, Done]):
    """`completed` when the destination has reported F9 as well."""

    name = "await-destination"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Wait for the report, for as long as it takes."""
        reported = await wait_report(ctx, "F9", "completed")
        why = f"complete on {ctx.migration.destination} and {ctx.migration.source}"
        removed = ctx.history.get(VmRemoved)
        kept = removed.why
        if kept:
            why = f"{kept}; its definition and copied disks are kept on {ctx.migration.source}, as last seen there"
        elif not reported:
            why = f"complete on {ctx.migration.source}; {ctx.migration.destination} was declared dead afterwards"
        if reported and (paused := _arrived_paused(ctx)):
            why += f"; the guest arrived paused on {ctx.migration.destination}, {paused}"
        if lost := forgotten(ctx, "F9"):
            why += f"; {lost}"
        if not kept and (left := removed.words(ctx.migration.source)):
            why += f"; {left}"
        if edited := definition.words(ctx):
            why += f"; {edited}"
        for detached in (ctx.history.get(VolumesDetached), ctx.history.find(RemainingVolumesDetached)):
            if detached is not None and (admitted := detached.words(ctx.migration.source)):
                why += f"; {admitted}"
        ctx.set_status(Status.COMPLETED, why)
        ctx.write(Kind.CLOSED)
        return Done()


def _arrived_paused(ctx: Context) -> str:
    """Why the guest did not run at F8, as the destination reported; '' where it did."""
    report = ctx.history.find(DestinationReport, "F9")
    if report is None or report.guest_state != GuestState.PAUSED:
        return ""
    return words_of(report.guest_reason[:100])
