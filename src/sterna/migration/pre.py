"""Phase 1, pre_live_migration: everything the VM will need on the destination, and how each part is undone.

P1-P3 and P12 run on the source, P4-P10 on the destination (which journals them itself). The undo of P3 is the
destination's own rollback; the undos of P4-P10 are in rollback.py under R3 and R5-R7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sterna.domain import untrusted
from sterna.domain.errors import (
    Cancelled,
    Conflict,
    Permanent,
    Refused,
    SternaError,
    Temporary,
    Undelivered,
)
from sterna.domain.jobs import occupied
from sterna.domain.journal import Kind, Role
from sterna.domain.model import Data, DestinationDisk, DestinationNic, Disk, DiskKind, Nic
from sterna.domain.plugs import HOSTDEV, MADE_AHEAD, claimed, device_name, is_wired_by_agent
from sterna.domain.status import Status
from sterna.domain.step import Step
from sterna.migration import promises, rollback, secrets
from sterna.migration.context import AUTOSTART, P3_TRIED, P3_UNDELIVERED, Context
from sterna.migration.image import against, image_of
from sterna.migration.rollback import taps_made
from sterna.migration.sharing import decide_local
from sterna.ports.storage import Created, Storage

# ---------------------------------------------------------------- source


class SetPreparing(Step[Context]):
    """P1: the migration's status becomes `preparing`."""

    row, name = "P1", "set-preparing"
    reads_only = True

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Journal the status."""
        ctx.set_status(Status.PREPARING, f"preparing {ctx.migration.destination}")
        return {}


AGENT_LOOK_S = 0.05
"""How closely a network agent is followed: a look at the local copy of the switch's records."""


async def _with_owner(storage: Storage, disk: Disk) -> Disk:
    """A local disk's copy belongs to whom the disk belongs to."""
    if not disk.local or disk.path is None:
        return disk
    return disk.model_copy(update={"owner": await storage.owner_of(disk.path)})


class SnapshotVolumes(Step[Context]):
    """P2: read the VM's volumes and NICs, and keep a snapshot of them.

    Also settles which file disks only this host can see. Changes nothing.
    """

    row, name = "P2", "snapshot-volumes"
    undo = (rollback.DropTokens,)

    async def plan(self, ctx: Context) -> Data:
        """Which paths get a token for a moment, so that a crash in between can be swept."""
        vm = await ctx.host.hypervisor.vm(ctx.vm_uuid)
        disks = [await ctx.host.storage.examine(d) for d in vm.disks]
        return {"paths": list(dict.fromkeys(path for d in disks for path in d.files))}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """The VM as it is now."""
        vm = await ctx.host.hypervisor.vm(ctx.vm_uuid)
        if keeps := occupied(vm, await ctx.host.hypervisor.check_outgoing(vm.uuid)):
            raise Refused(keeps)
        decided = await decide_local(ctx.host.storage, ctx.elsewhere, vm.disks, ctx.token)
        disks = tuple([await _with_owner(ctx.host.storage, disk) for disk in decided])
        against = [refusal for disk in disks for refusal in disk.against]
        if against:
            raise Refused(against)
        nics = []
        for nic in vm.nics:
            port = await ctx.host.vif.describe(nic)
            if port is None:
                raise Permanent(f"NIC {nic.mac} is not plugged into any bridge here", fix="plug it, or detach it")
            nics.append(port)
        vm = vm.model_copy(update={"disks": disks, "nics": tuple(nics)})
        return {"vm": vm.model_dump(mode="json")}


class PrepareBindings(Step[Context]):
    """Before P3: each port has a binding for the destination, not yet active, and says where it goes."""

    name = "prepare-bindings"
    undo = (rollback.WithdrawDestinationBindings,)

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Ask the network service; without one it is nothing."""
        await ctx.host.network.prepare(ctx.vm_before(), *ctx.network_hosts)
        return ctx.asked_network


async def unless_aborted(ctx: Context, call: Coroutine[Any, Any, Data]) -> Data:
    """The answer. Raises Cancelled at an abort: whatever the destination is doing for it meanwhile, it undoes."""
    asking, aborted = asyncio.ensure_future(call), asyncio.ensure_future(ctx.abort.wait())
    try:
        await asyncio.wait((asking, aborted), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Cancelled("aborted on request")
        return asking.result()
    finally:
        asking.cancel()
        aborted.cancel()
        await asyncio.gather(asking, aborted, return_exceptions=True)


class CallPreLiveMigration(Step[Context]):
    """P3: ask the destination to prepare everything; P11 is its answer."""

    row, name = "P3", "pre-live-migration"
    undo = (rollback.FindConnections, rollback.RemoveVolumeConnection, rollback.CastRollback)
    patience_s = 60.0  # a destination agent that was killed gets the time to be started again

    async def do(self, ctx: Context, plan: Data) -> Data:
        """The destination's typed data per disk and NIC."""
        vm = ctx.vm_before()
        params = {"migration": ctx.migration.model_dump(), "vm": vm.model_dump(mode="json")}
        ctx.count(P3_TRIED)
        try:
            params |= await unless_aborted(ctx, secrets.bring(ctx, vm))
        except SternaError:
            ctx.count(P3_UNDELIVERED)  # a question changes nothing
            raise
        try:
            told = await unless_aborted(ctx, ctx.peer.call("pre_live_migration", params))
            answer = untrusted.answer(told)
        except Undelivered:
            ctx.count(P3_UNDELIVERED)
            raise
        ctx.note("P11", "pre-live-migration-result", answer)
        return answer


class WaitVifPlugged(Step[Context]):
    """P12: wait until the destination's network forwards for the ports made ahead of the guest."""

    row, name = "P12", "network-vif-plugged"

    async def do(self, ctx: Context, plan: Data) -> Data:
        """The destination watches its own switch; it says so as soon as it is true."""
        return await unless_aborted(ctx, ctx.peer.call("wait_vif_plugged", {}))


class MakeWay(Step[Context]):
    """Before M4: the destination's taps make way for those that its libvirt makes with the incoming guest.

    So what libvirt knows of the guest afterwards is what it would know without Sterna, and its own tools can move,
    save and restore it (ADR 15). The switch keeps the ports, wired as they are.
    """

    name = "make-way"

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Ask for it; repeating is harmless. The destination learns what autostart was when it was cleared."""
        autostart = bool(ctx.history.plans["take-ownership"]["autostart"])
        return await unless_aborted(ctx, ctx.peer.call("make_way", {"autostart": autostart}))


class DetachDevices(Step[Context]):
    """Before M1: what QEMU cannot copy is taken from the guest; its standby NIC (net_failover) goes on."""

    name = "detach-devices"
    undo = (rollback.AttachDevices,)

    async def plan(self, ctx: Context) -> Data:
        """The virtual functions the guest is about to lose."""
        return {"nics": [n.model_dump(mode="json") for n in ctx.vm_before().nics if n.plug == HOSTDEV]}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """One by one; each is gone when the guest has let go of it."""
        for raw in plan["nics"]:
            await ctx.host.hypervisor.detach_nic(ctx.vm_uuid, Nic.model_validate(raw))
        return {}


# ---------------------------------------------------------------- destination


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
    undo = (rollback.DisconnectVolumes,)

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


async def wait_wired(ctx: Context, *, patience_s: float = 30.0) -> Data:
    """P12, the destination's half: until every tap made at P10 is wired. Raises Temporary after `patience_s`."""
    nics = taps_made(ctx)
    deadline = ctx.clock.monotonic_ms() + patience_s * 1000
    for nic in nics:
        while not await ctx.host.vif.wired(nic):
            if ctx.clock.monotonic_ms() > deadline:
                raise Temporary(f"{nic.device} is plugged but the switch does not forward for it yet")
            await ctx.clock.sleep(0.05)
    told = await _wait_for_agent(ctx, nics) if ctx.host.network.service or ctx.host.wait_for else {}
    return {"wired": [nic.device for nic in nics]} | told


async def make_way(ctx: Context, autostart: bool) -> Data:
    """The destination's half of `MakeWay`. Raises Conflict, Unreachable."""
    ctx.note_once("", AUTOSTART, {"on": autostart})
    nics = taps_made(ctx)
    for nic in nics:
        await ctx.host.vif.make_way(nic)
    return {"taps": [nic.device for nic in nics]}


async def _wait_for_agent(ctx: Context, nics: list[Nic]) -> Data:
    """Until this host's network agent has wired the ports too: what is wired before the guest arrives costs it
    nothing. The switch itself is where that is seen first. Raises Permanent where that is fatal."""
    began, limit_ms = ctx.clock.monotonic_ms(), ctx.host.vif_plugging_timeout_s * 1000
    for nic in nics:
        while not is_wired_by_agent(await ctx.host.vif.describe(nic), ctx.host.wait_for):
            if ctx.clock.monotonic_ms() - began > limit_ms:
                why = (
                    f"the network agent of {ctx.host.name} has not wired {nic.device} within {limit_ms / 1000:g} s"
                )
                if ctx.host.vif_plugging_is_fatal:
                    raise Permanent(
                        why, fix="see its log; or let a migration go on all the same (vif_plugging_is_fatal)"
                    )
                return {"by_agent": False, "why": why}
            await ctx.clock.sleep(AGENT_LOOK_S)
    return {"by_agent": True}
