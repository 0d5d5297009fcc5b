"""Phase 3 on the destination, F6-F9: begun when F5's cast reaches it. Only forward, until it holds."""

from __future__ import annotations

import contextlib

from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.destination import (
    BindingsActivated,
    NetworkInfoAfter,
    ResourcesUpdated,
    VifsPlugged,
    VmUpdated,
)
from sterna.domain.entries.destination_notes import AutostartAtSource
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import GuestState
from sterna.domain.plugs import plug_type
from sterna.domain.step import Step
from sterna.domain.whereabouts import GONE, SAVED
from sterna.migration.context import Context
from sterna.migration.destination.taps import unplug_taps


class ReadNetworkInfoAfter(Step[Context, NoPlan, NetworkInfoAfter]):
    """F6: the VM's network info, from what P10 plugged; virtual functions are given to the guest."""

    row, name = "F6", "read-network-info-after"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> NetworkInfoAfter:
        """The NICs that must be plugged now."""
        nics = ctx.history.get(VifsPlugged).nics
        for nic in (n for n in nics if plug_type(n).hot_unplugged):
            if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state not in GONE:
                await ctx.host.hypervisor.attach_nic(ctx.vm_uuid, nic)
        return NetworkInfoAfter(nics=nics)


class ActivateBindings(Step[Context, NoPlan, BindingsActivated]):
    """F7: the ports are this host's now, at the network service and in the switch."""

    row, name = "F7", "activate-bindings"

    async def do(self, ctx: Context, plan: NoPlan) -> BindingsActivated:
        """Confirm what was activated at the switch-over, drop the source's, then look at the switch.

        A guest that was started again here has other devices than P10 made.
        """
        await ctx.host.network.settle(ctx.incoming_vm(), *ctx.network_hosts)
        if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state in GONE:
            return BindingsActivated(network=ctx.asked_network)
        has = {nic.mac.lower(): nic for nic in (await ctx.host.hypervisor.vm(ctx.vm_uuid)).nics}
        for planned in ctx.history.get(VifsPlugged).nics:
            nic, now = planned, has.get(planned.mac.lower())
            if not plug_type(planned).hot_unplugged:
                if now is None:  # one that has been detached is not waited for
                    continue
                nic = planned.model_copy(update={"device": now.device or planned.device})
            if not await ctx.host.vif.wired(nic):
                raise Temporary(f"{nic.device or nic.mac} is not wired", fix="check its bridge, or detach the NIC")
        return BindingsActivated(network=ctx.asked_network)


class UpdateVm(Step[Context, NoPlan, VmUpdated]):
    """F8: read the VM's state here; its host, power_state and task_state are updated. Autostart as it was; nothing
    is left in its QEMU of the copy of its disks."""

    row, name = "F8", "update-vm"

    async def do(self, ctx: Context, plan: NoPlan) -> VmUpdated:
        """This hypervisor's view, and the finished job's statistics."""
        seen = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        if seen.state is GuestState.UNKNOWN:
            raise Temporary(f"libvirt here does not say where the guest is: {seen.reason}")
        before = ctx.history.find(AutostartAtSource)
        if before is not None and before.on and seen.state is not GuestState.ABSENT:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, True)
        if any(disk.local for disk in ctx.incoming_vm().disks):
            with contextlib.suppress(Permanent):  # a QEMU that cannot be asked has to be left as it is
                await ctx.host.hypervisor.end_exports(ctx.vm_uuid)
        job = await ctx.host.hypervisor.completed_job(ctx.vm_uuid)
        return VmUpdated(host=ctx.host.name, power_state=seen.state, power_reason=seen.reason, job=job)


class UpdateResources(Step[Context, NoPlan, ResourcesUpdated]):
    """F9: this host's resources are updated. The migration is complete on the destination."""

    row, name = "F9", "update-resources"

    async def do(self, ctx: Context, plan: NoPlan) -> ResourcesUpdated:
        """What this host has free now. Of a guest that has ended here, the taps made ahead of it go too."""
        seen = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        if seen.state in GONE and seen.reason != SAVED:  # one that is defined here may be started again
            await unplug_taps(ctx, for_good=seen.state is GuestState.ABSENT)
        await ctx.host.hypervisor.close_recovery(ctx.vm_uuid)
        facts = await ctx.host.hypervisor.host()
        return ResourcesUpdated(memory_free_bytes=facts.memory_free_bytes)
