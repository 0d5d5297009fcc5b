"""The rollback on the destination: R3 and R5-R7, the undos of P4-P10.

Every step is retried for as long as it takes. Each copes with a `do` that stopped anywhere, or never began.
"""

from __future__ import annotations

from collections.abc import Mapping

from sterna.domain.entries.base import Done, NoPlan
from sterna.domain.entries.destination import (
    BindingsWithdrawn,
    TargetsMade,
    TargetsRemoved,
    TargetsToMake,
    VolumesToAttach,
    VolumesToConnect,
)
from sterna.domain.entries.destination_notes import IncomingVm, TargetsReserved
from sterna.domain.errors import Conflict, Permanent, StorageSilent, Temporary
from sterna.domain.files import Removed
from sterna.domain.model import Disk, GuestState
from sterna.domain.step import Step
from sterna.migration import removal
from sterna.migration.context import Context
from sterna.migration.destination.taps import unplug_taps
from sterna.migration.volumes import detach_unless_used, of_each, users_of_luns


class DisconnectVolumesHere(Step[Context, NoPlan, Done]):
    """R3, undo of P9: this host disconnects the volumes."""

    row, name = "R3", "disconnect-volumes-here"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Those P9 may have connected."""
        if not ctx.history.has(VolumesToConnect):
            return Done()
        await refuse_if_used(ctx)
        await of_each(ctx.host, attached_disks(ctx), lambda volumes, disk: volumes.disconnect(disk))
        return Done()


class TerminateConnections(Step[Context, NoPlan, Done]):
    """R3, undo of P4: this host's admissions are withdrawn."""

    row, name = "R3", "terminate-connections"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Those P4 meant to make, made or not; what another VM here has as a disk, it keeps."""
        if disks := attached_disks(ctx):
            await refuse_if_used(ctx)
        users = await users_of_luns(ctx.host, disks, ctx.vm_uuid)
        await detach_unless_used(ctx.host, disks, users, ctx.vm_uuid)
        return Done()


async def refuse_if_used(ctx: Context) -> None:
    """R3 comes in a message, which may be late or false: look whether the guest uses its volumes here.

    Raises Conflict where it runs here or has; what the hypervisor raises where it does not answer.
    """
    seen = await ctx.host.hypervisor.observe(ctx.vm_uuid)
    if seen.state is GuestState.RUNNING or (seen.state is GuestState.PAUSED and seen.ran):
        raise Conflict(
            f"the guest is {seen.state} on {ctx.host.name}: its volumes stay connected",
            fix=f"end it on {ctx.host.name}, or move it away, if it does not belong there",
        )


def attached_disks(ctx: Context) -> tuple[Disk, ...]:
    """P4's intent on this host."""
    plan = ctx.history.find(VolumesToAttach)
    return plan.disks if plan else ()


class RemoveConfiguration(Step[Context, NoPlan, Done]):
    """R5: nothing of the VM's configuration stays on this host; a guest that runs here is never touched."""

    row, name = "R5", "remove-configuration"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """End what waits for its memory and never ran, undefine what is ours and inactive.

        R0 has settled that the guest is the source's: a definition of this epoch without a QEMU is left over.
        """
        uuid, epoch = ctx.vm_uuid, ctx.migration.epoch
        seen = await ctx.host.hypervisor.observe(uuid)
        active_and_ran = seen.state is GuestState.RUNNING or (seen.state is GuestState.PAUSED and seen.ran)
        if active_and_ran:
            raise Temporary(f"the guest runs on {ctx.host.name}: nothing is removed here")
        if seen.state is GuestState.PAUSED:
            await ctx.host.hypervisor.end_incoming(uuid, epoch)
            seen = await ctx.host.hypervisor.observe(uuid)
        if seen.state is GuestState.SHUTOFF and seen.epoch == epoch:
            targets, vm = ctx.history.find(TargetsToMake), ctx.history.find(IncomingVm)
            made = frozenset(targets.absent if targets else ())
            state: tuple[str, ...] = ()
            if vm is not None and not ctx.peer_fenced:
                state = await removal.private_state(ctx, vm.vm, made_here=made)
            await ctx.host.hypervisor.undefine(uuid, epoch, remove=state)  # R7 sees to what stays
        await ctx.host.hypervisor.close_recovery(uuid)
        return Done()


class RemoveVifs(Step[Context, NoPlan, Done]):
    """R6, undo of P10: the taps made ahead."""

    row, name = "R6", "remove-vifs"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Those P10 meant to make, made or not, and only if they are still this VM's."""
        await unplug_taps(ctx)
        return Done()


class WithdrawBindings(Step[Context, NoPlan, BindingsWithdrawn]):
    """R6, undo of P5: this host's inactive bindings."""

    row, name = "R6", "withdraw-bindings"

    async def do(self, ctx: Context, plan: NoPlan) -> BindingsWithdrawn:
        """Those the source made for it, if they are still there."""
        await ctx.host.network.withdraw(ctx.incoming_vm(), *ctx.network_hosts)
        return BindingsWithdrawn(network=ctx.asked_network)


class RemoveInstanceDirectory(Step[Context, NoPlan, TargetsRemoved]):
    """R7, undo of P8: only what P8's intent names, and only if it is still the same file."""

    row, name = "R7", "remove-instance-directory"

    async def do(self, ctx: Context, plan: NoPlan) -> TargetsRemoved:
        """Remove it, and the NVRAM that libvirt keeps of a guest that did not arrive. What is used by something
        else by now is kept, and reported."""
        targets = ctx.history.find(TargetsToMake)
        if targets is None:
            return TargetsRemoved()
        incoming = ctx.history.find(IncomingVm)
        if incoming:
            await removal.remove_outputs(ctx, incoming.vm, targets.directories)
        removed = await removal.remove(ctx, targets, await _identities(ctx, targets), made_here=True)
        state = await removal.remove_state_made(ctx, incoming.vm, targets.absent) if incoming else Removed()
        return TargetsRemoved(
            removed=(*removed.removed, *state.removed),
            kept=removed.kept | state.kept,
        )


async def _identities(ctx: Context, targets: TargetsToMake) -> Mapping[str, str | None]:
    """Of the files that P8 made, as far as that is known: path -> identity. Where the agent died before it could
    write them down, the files hold nothing but this migration's mark."""
    if made := ctx.history.find(TargetsMade):
        return made.identities
    if reserved := ctx.history.find(TargetsReserved):
        return reserved.identities
    try:
        return await ctx.host.storage.reserved(targets, ctx.token)
    except (StorageSilent, Permanent):
        return {}
