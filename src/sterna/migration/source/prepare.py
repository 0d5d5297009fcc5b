"""Phase 1 on the source, P1-P3 and P12: what the VM is, and the call that has the destination prepare for it.

The undo of P3 is the destination's own rollback; the others are in `rollback.py`.
"""

from __future__ import annotations

import structlog

from sterna.domain import calls, untrusted
from sterna.domain.claims import inside, left_behind
from sterna.domain.entries.base import Done, NoPlan
from sterna.domain.entries.notes import AnswerReceived, AskedDestination, DestinationNotReached
from sterna.domain.entries.source import (
    BindingsPrepared,
    DestinationAnswer,
    DestinationAsked,
    DevicesToDetach,
    PortsWired,
    Snapshot,
    TokensToLeave,
)
from sterna.domain.errors import Refused, SternaError, Undelivered
from sterna.domain.jobs import occupied
from sterna.domain.model import Disk
from sterna.domain.plugs import not_plugged, plug_type, refusals, unknowns
from sterna.domain.status import Status
from sterna.domain.step import Step
from sterna.kit.aborts import raise_if_aborted
from sterna.migration.context import Context
from sterna.migration.sharing import against_shared_tpm, decide_local, prove_state, prove_written, silent_on
from sterna.migration.source import rollback, secrets
from sterna.migration.source.asking import unless_aborted
from sterna.ports.storage import Storage

log = structlog.get_logger(__name__)


class SetPreparing(Step[Context, NoPlan, Done]):
    """P1: the migration's status becomes `preparing`."""

    row, name = "P1", "set-preparing"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Journal the status."""
        ctx.set_status(Status.PREPARING, f"preparing {ctx.migration.destination}")
        return Done()


async def _examined(storage: Storage, disk: Disk) -> Disk:
    raise_if_aborted()
    return await storage.examine(disk)


async def _with_owner(storage: Storage, disk: Disk) -> Disk:
    """A local disk's copy belongs to whom the disk belongs to."""
    raise_if_aborted()
    if not disk.local or disk.path is None:
        return disk
    return disk.model_copy(update={"owner": await storage.owner_of(disk.path)})


class SnapshotVolumes(Step[Context, TokensToLeave, Snapshot]):
    """P2: read the VM's volumes and NICs, and keep a snapshot of them.

    Also settles which file disks only this host can see. Changes nothing.
    """

    row, name = "P2", "snapshot-volumes"
    undo = (rollback.DropTokens,)

    async def plan(self, ctx: Context) -> TokensToLeave:
        """Which paths get a token for a moment, so that a crash in between can be swept."""
        vm = await ctx.host.hypervisor.vm(ctx.vm_uuid)
        with silent_on(ctx.host.name):
            disks = [await _examined(ctx.host.storage, disk) for disk in vm.disks]
        files = (path for d in disks for path in d.files)
        states = (path for state in vm.firmware for path in inside(state))
        return TokensToLeave(paths=tuple(dict.fromkeys((*files, *vm.written, *states))))

    async def do(self, ctx: Context, plan: TokensToLeave) -> Snapshot:
        """The VM as it is now."""
        vm = await ctx.host.hypervisor.vm(ctx.vm_uuid)
        if keeps := occupied(vm, await ctx.host.hypervisor.check_outgoing(vm.uuid)):
            raise Refused(keeps)
        with silent_on(ctx.host.name):
            decided = await decide_local(ctx.host.storage, ctx.elsewhere, vm.disks, ctx.token)
            disks = tuple([await _with_owner(ctx.host.storage, disk) for disk in decided])
            references = await prove_written(ctx.host.storage, ctx.elsewhere, vm.references, ctx.token)
            firmware = await prove_state(ctx.host.storage, ctx.elsewhere, vm.firmware, ctx.token)
            against = await against_shared_tpm(ctx.host.storage, ctx.elsewhere, vm, ctx.token)
        against += [refusal for disk in disks for refusal in disk.against]
        if against:
            raise Refused(against)
        for disk in filter(left_behind, disks):
            log.warning("an optional medium stays behind", vm=vm.name, disk=disk.target, path=disk.path)
        nics = []
        for nic in vm.nics:
            raise_if_aborted()
            port = await ctx.host.vif.describe(nic)
            if port is None:
                raise Refused(refusals(nic) or unknowns(nic) or [not_plugged(nic)])
            nics.append(port)
        found = {"disks": disks, "nics": tuple(nics), "references": references, "firmware": firmware}
        return Snapshot(vm=vm.model_copy(update=found))


class PrepareBindings(Step[Context, NoPlan, BindingsPrepared]):
    """Before P3: each port has a binding for the destination, not yet active, and says where it goes."""

    name = "prepare-bindings"
    undo = (rollback.WithdrawDestinationBindings,)

    async def do(self, ctx: Context, plan: NoPlan) -> BindingsPrepared:
        """Ask the network service, if there is one. An abort is checked between its requests."""
        await ctx.host.network.prepare(ctx.vm_before(), *ctx.network_hosts)
        return BindingsPrepared(network=ctx.asked_network)


class CallPreLiveMigration(Step[Context, DestinationAsked, DestinationAnswer]):
    """P3: ask the destination to prepare everything; P11 is its answer."""

    row, name = "P3", "pre-live-migration"
    undo = (rollback.FindConnections, rollback.RemoveVolumeConnection, rollback.CastRollback)
    patience_s = 60.0  # a destination agent that was killed gets the time to be started again

    async def do(self, ctx: Context, plan: DestinationAsked) -> DestinationAnswer:
        """The destination's typed data per disk and NIC."""
        call = calls.PreLiveMigration(migration=ctx.migration, vm=ctx.vm_before())
        ctx.count(AskedDestination)
        try:
            call = await unless_aborted(ctx, secrets.bring(ctx, call))
        except SternaError:
            ctx.count(DestinationNotReached)  # a question changes nothing
            raise
        try:
            reply = await unless_aborted(ctx, ctx.peer.call(call.method, call.to_wire()))
            answer = untrusted.answer(reply, ctx.migration.options.addresses)
        except Undelivered:
            ctx.count(DestinationNotReached)
            raise
        ctx.note(AnswerReceived(**dict(answer)))
        return DestinationAnswer(**dict(answer))


class WaitVifPlugged(Step[Context, NoPlan, PortsWired]):
    """P12: wait until the destination's network forwards for the ports made ahead of the guest."""

    row, name = "P12", "network-vif-plugged"

    async def do(self, ctx: Context, plan: NoPlan) -> PortsWired:
        """The destination watches its own switch, and answers as soon as it forwards."""
        answer = await unless_aborted(ctx, ctx.peer.call(calls.WaitVifPlugged.method, {}))
        return untrusted.remark(PortsWired, answer)


class DetachDevices(Step[Context, DevicesToDetach, Done]):
    """Before M1: what QEMU cannot copy is taken from the guest; its standby NIC (net_failover) goes on."""

    name = "detach-devices"
    undo = (rollback.AttachDevices,)

    async def plan(self, ctx: Context) -> DevicesToDetach:
        """The virtual functions the guest is about to lose."""
        return DevicesToDetach(nics=tuple(n for n in ctx.vm_before().nics if plug_type(n).hot_unplugged))

    async def do(self, ctx: Context, plan: DevicesToDetach) -> Done:
        """One by one; each is gone when the guest has released it. An abort is checked between them."""
        for nic in plan.nics:
            raise_if_aborted()
            await ctx.host.hypervisor.detach_nic(ctx.vm_uuid, nic)
        return Done()
