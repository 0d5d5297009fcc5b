"""Phase 1 on the destination, P4-P10: everything that the VM will need here, and how each part is undone.

Each step is journaled on this host. The undos are in `rollback.py`, under R3 and R5-R7.
"""

from __future__ import annotations

from sterna.domain.copying import DestinationDisk, DestinationNic
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.destination import (
    DevicesClaimed,
    DevicesToClaim,
    DriverPrepared,
    ImageRead,
    NetworkInfo,
    Tap,
    TapsToMake,
    TargetsMade,
    TargetsToMake,
    VifsPlugged,
    VolumesAttached,
    VolumesConnected,
    VolumesToAttach,
    VolumesToConnect,
)
from sterna.domain.entries.destination_notes import TargetsReserved
from sterna.domain.entries.source import Answer
from sterna.domain.errors import (
    Conflict,
    Refused,
)
from sterna.domain.hosts import HostFacts
from sterna.domain.journal import Role
from sterna.domain.model import DiskKind, Nic
from sterna.domain.plugs import claimed, device_name, of_vm, plug_type
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.destination import reserved, rollback, targets
from sterna.migration.image import against, image_of
from sterna.migration.volumes import of_each


class AttachVolumes(Step[Context, VolumesToAttach, VolumesAttached]):
    """P4: the volumes as this host must reach them; this host is admitted at the volume service."""

    row, name = "P4", "attach-volumes"
    undo = (rollback.TerminateConnections,)

    async def plan(self, ctx: Context) -> VolumesToAttach:
        """Which volumes are about to be attached here. Raises Refused where another VM here uses one: what is
        planned here, R3 takes from all VMs of this host."""
        disks = tuple(d for d in ctx.incoming_vm().disks if not d.local and d.kind is not DiskKind.EMPTY)
        if refusals := await targets.in_use(ctx.host, ctx.journal, disks, ctx.vm_uuid):
            raise Refused(refusals)
        return VolumesToAttach(disks=disks)

    async def do(self, ctx: Context, plan: VolumesToAttach) -> VolumesAttached:
        """Attach them."""
        source, _ = ctx.network_hosts
        attached = await of_each(ctx.host, plan.disks, lambda volumes, disk: volumes.attach(disk, source))
        return VolumesAttached(disks=tuple(attached))


class ReadNetworkInfo(Step[Context, NoPlan, NetworkInfo]):
    """P5: the NICs as this host must plug them."""

    row, name = "P5", "read-network-info"
    undo = (rollback.WithdrawBindings,)

    async def do(self, ctx: Context, plan: NoPlan) -> NetworkInfo:
        """Ask the network service; what each plug type needs must be here. Raises Refused with every reason."""
        described = await ctx.host.network.nics_for(ctx.incoming_vm(), *ctx.network_hosts)
        nics = tuple(of_vm(nic, ctx.vm_uuid) for nic in described)
        refusals = [refusal for nic in nics for refusal in await ctx.host.vif.check(nic)]
        if refusals:
            raise Refused(refusals)
        return NetworkInfo(nics=nics, network=ctx.asked_network)


class PrepareDriver(Step[Context, NoPlan, DriverPrepared]):
    """P6: hand over to the hypervisor's side: it must know no guest of this UUID that is not ours."""

    row, name = "P6", "driver-pre-live-migration"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> DriverPrepared:
        """The hypervisor's own checks, once more, now that nothing else can come in between; and at which of this
        host's addresses the guest shall listen where it listened at one of the source's."""
        vm = ctx.incoming_vm()
        refusals = await reserved.refusals(ctx.host.hypervisor, ctx.journal, vm, before=ctx.migration.id)
        refusals += await reserved.overwritten(ctx.host, ctx.journal, vm)
        if refusals:
            raise Refused(refusals)
        return DriverPrepared(listens=await ctx.host.hypervisor.listens_for(vm))


class ReadImageMetadata(Step[Context, NoPlan, ImageRead]):
    """P7: the VM's image metadata, and whether this host is what the image demands."""

    row, name = "P7", "read-image-metadata"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> ImageRead:
        """What the source's definition carries, else what the image service says."""
        image = await image_of(ctx.host, ctx.incoming_vm())
        refusals = await against(ctx.host, image)
        if refusals:
            raise Refused(refusals)
        return ImageRead(image=image)


class CreateInstanceDirectory(Step[Context, TargetsToMake, TargetsMade]):
    """P8: the instance directory and the empty targets of local disks."""

    row, name = "P8", "create-instance-directory"
    undo = (rollback.RemoveInstanceDirectory,)

    async def plan(self, ctx: Context) -> TargetsToMake:
        """Exactly what will be made: it does not exist before, and only this will be removed again."""
        vm = ctx.incoming_vm()
        local = tuple(d for d in vm.disks if d.local)
        storage = ctx.host.storage
        absent = [state.path for state in vm.firmware if await storage.identity(state.path) is None]
        targets = await storage.plan_targets(vm.uuid, local)
        return TargetsToMake(directories=targets.directories, files=targets.files, absent=tuple(absent))

    async def do(self, ctx: Context, plan: TargetsToMake) -> TargetsMade:
        """Make them; by their identities R7 knows them again. A file that somebody else puts there is left alone:
        raises Conflict."""
        local, storage = tuple(d for d in ctx.incoming_vm().disks if d.local), ctx.host.storage
        reserved = ctx.history.find(TargetsReserved)
        if reserved is None:
            reserved = TargetsReserved(identities=await storage.reserve_targets(plan, ctx.token))
            ctx.note(reserved)
        await storage.create_targets(local, reserved.identities)
        return TargetsMade(
            directories=plan.directories,
            files=plan.files,
            absent=plan.absent,
            identities={path: await storage.identity(path) for path in plan.files},
        )


class ClaimDevices(Step[Context, DevicesToClaim, DevicesClaimed]):
    """P8: which device of this host each NIC gets that has one for itself: a virtual function, a macvtap's parent.

    The intent in the journal is the claim; it lasts while the migration is open, and the guest has the device then.
    """

    row, name = "P8", "claim-devices"

    async def plan(self, ctx: Context) -> DevicesToClaim:
        """A free device that has not been promised to an arriving guest."""
        taken = set(_claims_of_others(ctx))
        nics = []
        for wanted in ctx.history.get(NetworkInfo).nics:
            nic = await ctx.host.vif.claim(wanted, taken)
            taken |= {c for c in (claimed(nic),) if c}
            nics.append(nic)
        return DevicesToClaim(nics=tuple(nics))

    async def do(self, ctx: Context, plan: DevicesToClaim) -> DevicesClaimed:
        """Two may have chosen at once: then the first written intent gets it. Raises Conflict."""
        others = _claims_of_others(ctx)
        mine = next(e.seq for e in ctx.journal.entries(ctx.migration.id) if e.name == self.name)
        for nic in plan.nics:
            if others.get(claimed(nic) or "", mine) < mine:
                raise Conflict(f"{claimed(nic)} is reserved for another incoming guest")
        return DevicesClaimed(nics=plan.nics)


def _claims_of_others(ctx: Context) -> dict[str, int]:
    """Device -> position of the earliest intent of another open migration here that claims it."""
    found: dict[str, int] = {}
    for migration, role in ctx.journal.open():
        if role is not Role.DESTINATION or migration.id == ctx.migration.id:
            continue
        for entry in ctx.journal.entries(migration.id):
            intent = DevicesToClaim.of(entry)
            for device in map(claimed, intent.nics if intent else ()):
                if device:
                    found[device] = min(entry.seq, found.get(device, entry.seq))
    return found


class ConnectVolumes(Step[Context, VolumesToConnect, VolumesConnected]):
    """P9: make the volumes reachable from here, and prove it by opening them read-only."""

    row, name = "P9", "connect-volumes"
    undo = (rollback.DisconnectVolumesHere,)

    async def do(self, ctx: Context, plan: VolumesToConnect) -> VolumesConnected:
        """Connect them."""
        disks = ctx.history.get(VolumesAttached).disks
        connected = await of_each(ctx.host, disks, lambda volumes, disk: volumes.connect(disk))
        return VolumesConnected(disks=tuple(connected))


class PlugVifs(Step[Context, TapsToMake, VifsPlugged]):
    """P10: make each NIC's tap ahead of the guest and add it to its bridge; of a NIC whose device libvirt makes
    with the guest, look whether it can."""

    row, name = "P10", "plug-vifs"
    undo = (rollback.RemoveVifs,)

    async def plan(self, ctx: Context) -> TapsToMake:
        """The taps about to be made. Raises Refused where a name has been taken since P5: what is planned here, R6
        takes away again."""
        nics = tuple(n for n in _nics_here(ctx) if plug_type(n).made_ahead)
        if refusals := [refusal for nic in nics for refusal in await ctx.host.vif.check(nic)]:
            raise Refused(refusals)
        return TapsToMake(taps=tuple(Tap(device=device_name(n), nic=n) for n in nics))

    async def do(self, ctx: Context, plan: TapsToMake) -> VifsPlugged:
        """Plug them, one by one."""
        plugged = []
        devices = {tap.nic.mac: tap.device for tap in plan.taps}
        for nic in _nics_here(ctx):
            device = devices[nic.mac] if plug_type(nic).made_ahead else ""
            plugged.append(await ctx.host.vif.plug(nic, vm_uuid=ctx.vm_uuid, device=device))
        return VifsPlugged(nics=tuple(plugged))


def _nics_here(ctx: Context) -> tuple[Nic, ...]:
    """As this host shall plug them, with what P8 claimed."""
    claims = ctx.history.find(DevicesClaimed)
    return (claims or ctx.history.get(NetworkInfo)).nics


def pre_live_migration_result(ctx: Context, facts: HostFacts) -> Answer:
    """P11: what the destination's domain XML must say, and where this host is reached."""
    history = ctx.history
    connected = history.get(VolumesConnected).disks
    logins = {d.target: d.chap for d in ctx.incoming_vm().disks}
    disks = [
        DestinationDisk(
            target=d.target,
            **d.way,
            login=d.chap if d.chap != logins.get(d.target) else None,
        )
        for d in connected
    ]
    disks += [
        DestinationDisk(
            target=d.target,
            kind=d.kind,
            path=d.path,
            copied=not d.carried,
            from_base=bool(d.backing_shared),
            holes_kept=d.holes_kept,
        )
        for d in ctx.incoming_vm().disks
        if d.local
    ]
    return Answer(
        disks=tuple(disks),
        nics=tuple(_answered_nic(nic) for nic in history.get(VifsPlugged).nics),
        listens=history.get(DriverPrepared).listens,
        address=ctx.host.address,
        addresses=(ctx.host.address, *ctx.host.more_addresses),
        host=facts,
    )


def _answered_nic(nic: Nic) -> DestinationNic:
    """What the domain XML needs of a plugged NIC."""
    return DestinationNic(
        mac=nic.mac,
        plug=nic.plug,
        device=nic.device or "",
        bridge=nic.bridge or "",
        port_id=nic.port_id or "",
        mtu=nic.mtu,
        vlan=nic.vlan,
        parent=nic.parent,
        mode=nic.mode,
        pci=nic.pci,
    )
