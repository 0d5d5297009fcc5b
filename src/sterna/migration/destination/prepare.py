"""Phase 1 on the destination, P4-P10: everything that the VM will need here, and how each part is undone.

Each step is journaled on this host. The undos are in `rollback.py`, under R3 and R5-R7.
"""

from __future__ import annotations

from sterna.domain.copying import DestinationDisk, DestinationNic
from sterna.domain.errors import (
    Conflict,
    Refused,
)
from sterna.domain.journal import Kind, Role
from sterna.domain.model import Data, Disk, DiskKind, Nic
from sterna.domain.plugs import MADE_AHEAD, claimed, device_name
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.destination import promises, rollback
from sterna.migration.image import against, image_of
from sterna.ports.storage import Created


class AttachVolumes(Step[Context]):
    """P4: the volumes as this host must reach them; this host is admitted at the volume service."""

    row, name = "P4", "attach-volumes"
    undo = (rollback.TerminateConnections,)

    async def plan(self, ctx: Context) -> Data:
        """Which volumes are about to be attached here."""
        disks = [d for d in ctx.incoming_vm().disks if not d.local and d.kind is not DiskKind.EMPTY]
        return {"disks": [d.model_dump(mode="json") for d in disks]}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Attach them, one by one."""
        attached = []
        for raw in plan["disks"]:
            disk = Disk.model_validate(raw)
            attached.append(await ctx.host.volumes_for(disk).attach(disk))
        return {"disks": [d.model_dump(mode="json") for d in attached]}


class ReadNetworkInfo(Step[Context]):
    """P5: the NICs as this host must plug them."""

    row, name = "P5", "read-network-info"
    undo = (rollback.WithdrawBindings,)

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Ask the network service; what each plug type needs must be here. Raises Refused with every reason."""
        nics = await ctx.host.network.nics_for(ctx.incoming_vm(), ctx.network_hosts[1])
        refusals = [refusal for nic in nics for refusal in await ctx.host.vif.check(nic)]
        if refusals:
            raise Refused(refusals)
        return {"nics": [n.model_dump(mode="json") for n in nics]} | ctx.asked_network


class PrepareDriver(Step[Context]):
    """P6: hand over to the hypervisor's side: it must know no guest of this UUID that is not ours."""

    row, name = "P6", "driver-pre-live-migration"
    reads_only = True

    async def do(self, ctx: Context, plan: Data) -> Data:
        """The hypervisor's own checks, once more, now that nothing else can come in between; and at which of this
        host's addresses the guest shall listen where it listened at one of the source's."""
        vm = ctx.incoming_vm()
        refusals = await promises.judge(ctx.host, ctx.journal, vm, before=ctx.migration.id)
        if refusals:
            raise Refused(refusals)
        return {"listens": await ctx.host.hypervisor.listens_for(vm)}


class ReadImageMetadata(Step[Context]):
    """P7: the VM's image metadata, and whether this host is what the image demands."""

    row, name = "P7", "read-image-metadata"
    reads_only = True

    async def do(self, ctx: Context, plan: Data) -> Data:
        """What the source's definition carries, else what the image service says."""
        image = await image_of(ctx.host, ctx.incoming_vm())
        refusals = await against(ctx.host, image)
        if refusals:
            raise Refused(refusals)
        return {"image": image}


class CreateInstanceDirectory(Step[Context]):
    """P8: the instance directory and the empty targets of local disks."""

    row, name = "P8", "create-instance-directory"
    undo = (rollback.RemoveInstanceDirectory,)

    async def plan(self, ctx: Context) -> Data:
        """Exactly what will be made: it does not exist before, and only this will be removed again."""
        vm = ctx.incoming_vm()
        local = tuple(d for d in vm.disks if d.local)
        storage = ctx.host.storage
        absent = [state.path for state in vm.firmware if await storage.identity(state.path) is None]
        return (await storage.plan_targets(vm.uuid, local)).model_dump() | {"absent": absent}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Make them; by their identities R7 knows them again."""
        local, storage = tuple(d for d in ctx.incoming_vm().disks if d.local), ctx.host.storage
        created = Created.model_validate(plan)
        await storage.create_targets(local, created)
        return plan | {"identities": {path: await storage.identity(path) for path in created.files}}


class ClaimDevices(Step[Context]):
    """P8: which device of this host each NIC gets that has one for itself: a virtual function, a macvtap's parent.

    The intent in the journal is the claim; it lasts while the migration is open, and the guest has the device then.
    """

    row, name = "P8", "claim-devices"

    async def plan(self, ctx: Context) -> Data:
        """What nobody has, and no guest on its way here has been promised."""
        taken = set(_claims_of_others(ctx))
        nics = []
        for raw in ctx.history.results["read-network-info"]["nics"]:
            nic = await ctx.host.vif.claim(Nic.model_validate(raw), taken)
            taken |= {c for c in (claimed(nic),) if c}
            nics.append(nic.model_dump(mode="json"))
        return {"nics": nics}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Two may have chosen at once: then it is whose intent was written first. Raises Conflict."""
        others = _claims_of_others(ctx)
        mine = next(e.seq for e in ctx.journal.entries(ctx.migration.id) if e.name == self.name)
        for nic in (Nic.model_validate(raw) for raw in plan["nics"]):
            if others.get(claimed(nic) or "", mine) < mine:
                raise Conflict(f"{claimed(nic)} has been promised to another guest that is on its way here")
        return plan


def _claims_of_others(ctx: Context) -> dict[str, int]:
    """Device -> position of the earliest intent of another open migration here that claims it."""
    found: dict[str, int] = {}
    for migration, role in ctx.journal.open():
        if role is not Role.DESTINATION or migration.id == ctx.migration.id:
            continue
        for entry in ctx.journal.entries(migration.id):
            if entry.name == ClaimDevices.name and entry.kind is Kind.INTENT:
                for device in (claimed(Nic.model_validate(raw)) for raw in entry.data["nics"]):
                    if device:
                        found[device] = min(entry.seq, found.get(device, entry.seq))
    return found


class ConnectVolumes(Step[Context]):
    """P9: make the volumes reachable from here, and prove it by opening them read-only."""

    row, name = "P9", "connect-volumes"
    undo = (rollback.DisconnectVolumesHere,)

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Connect them, one by one."""
        connected = []
        for raw in ctx.history.results["attach-volumes"]["disks"]:
            disk = Disk.model_validate(raw)
            connected.append(await ctx.host.volumes_for(disk).connect(disk))
        return {"disks": [d.model_dump(mode="json") for d in connected]}


class PlugVifs(Step[Context]):
    """P10: make each NIC's tap ahead of the guest and add it to its bridge; of a NIC whose device libvirt makes
    with the guest, look whether it can."""

    row, name = "P10", "plug-vifs"
    undo = (rollback.RemoveVifs,)

    async def plan(self, ctx: Context) -> Data:
        """The taps about to be made."""
        taps = [n for n in _nics_here(ctx) if n.plug in MADE_AHEAD]
        return {"taps": [{"device": device_name(n), "nic": n.model_dump(mode="json")} for n in taps]}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Plug them, one by one."""
        plugged = []
        devices = {tap["nic"]["mac"]: tap["device"] for tap in plan["taps"]}
        for nic in _nics_here(ctx):
            device = devices[nic.mac] if nic.plug in MADE_AHEAD else ""
            plugged.append(await ctx.host.vif.plug(nic, vm_uuid=ctx.vm_uuid, device=device))
        return {"nics": [n.model_dump(mode="json") for n in plugged]}


def _nics_here(ctx: Context) -> list[Nic]:
    """As this host shall plug them, with what P8 claimed."""
    found = ctx.history.results.get("claim-devices") or ctx.history.results["read-network-info"]
    return [Nic.model_validate(raw) for raw in found["nics"]]


def pre_live_migration_result(ctx: Context) -> Data:
    """P11: what the destination's domain XML must say, as typed data: `disks`, `nics`, `uri`."""
    results = ctx.history.results
    connected = [Disk.model_validate(d) for d in results["connect-volumes"]["disks"]]
    logins = {d.target: d.chap for d in ctx.incoming_vm().disks}
    disks = [
        DestinationDisk(
            target=d.target,
            kind=d.kind,
            path=d.path,
            iscsi=d.iscsi,
            rbd=d.rbd,
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
    nics = [
        DestinationNic(
            mac=n.mac,
            plug=n.plug,
            device=n.device or "",
            bridge=n.bridge or "",
            port_id=n.port_id or "",
            mtu=n.mtu,
            vlan=n.vlan,
            parent=n.parent,
            mode=n.mode,
            pci=n.pci,
        )
        for n in (Nic.model_validate(raw) for raw in results["plug-vifs"]["nics"])
    ]
    return {
        "disks": [d.model_dump(mode="json") for d in disks],
        "nics": [n.model_dump(mode="json") for n in nics],
        "listens": results["driver-pre-live-migration"].get("listens", {}),
        "address": ctx.host.address,
        "addresses": [ctx.host.address, *ctx.host.more_addresses],
    }
