"""What the contract tests of hosts work with: two hosts with a guest maker, behind one small interface.

Simulated in `simulated_hosts.py`, real in `lab_hosts.py`.
"""

import uuid as uuids
from typing import Any

from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.errors import SternaError
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind, Nic, Vm
from sterna.domain.secrets import Secret


class Side:
    """One host's adapters: `hypervisor`, `vif`, `iscsi`, `files`, `storage`."""

    tunnel_uri = ""
    """What the other side's libvirtd calls this one through SSH."""

    def __init__(self, name: str, uri: str, stream: str, instances: str, **adapters: Any) -> None:
        self.name, self.uri, self.stream, self.instances = name, uri, stream, instances
        self.hypervisor = adapters["hypervisor"]
        self.vif = adapters["vif"]
        self.iscsi = adapters["iscsi"]
        self.files = adapters["files"]
        self.storage = adapters["storage"]

    def local(self, disk: Disk) -> Disk:
        """The disk with `local` decided, as the agents would by tokens."""
        mine = disk.kind is DiskKind.FILE and (disk.path or "").startswith(self.instances + "/")
        base = True if mine and disk.backing_path else None  # the bases made here are shared
        return disk.model_copy(
            update={"local": mine if disk.kind is DiskKind.FILE else None, "backing_shared": base}
        )


class TwoHosts:
    """`a` has the guests that `vm` makes, `b` has room for them."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b

    def make_vm(self, disks: tuple[str, ...]) -> str:
        """A running guest on `a` with disks of these kinds (shared, local, iscsi, overlay); its UUID."""
        raise NotImplementedError

    def define_secret(self, side: Side, secret: Secret, value: bytes | None) -> None:
        """An operator's own, with a value or without."""
        raise NotImplementedError

    def undefine_secret(self, side: Side, uuid: str) -> None:
        """An operator takes it away; none is success."""
        raise NotImplementedError

    unhurried: int
    """bytes/s: slow enough that a copy is still under way when a test has done something."""

    def cold_start(self, side: Side, uuid: str) -> None:
        """Power a guest off and on again by its persistent definition."""
        raise NotImplementedError

    def kill_qemu(self, side: Side, vm: Vm) -> None:
        """Its QEMU dies (-9) on this side."""
        raise NotImplementedError

    def knows_behind_link(self, side: Side, nic: Nic) -> bool:
        """Does this side's switch or bridge send frames for that NIC to the other host?"""
        raise NotImplementedError

    def open_tap(self, side: Side, device: str) -> None:
        """A process opens a tap, as QEMU does, until `close_taps`."""

    def close_taps(self) -> None:
        """Those processes end."""

    def has_device(self, side: Side, device: str) -> bool:
        """Is there such a device on this side?"""
        raise NotImplementedError

    def devices(self, side: Side, port_id: str) -> set[str]:
        """The devices and ports on this side that are named after that port."""
        raise NotImplementedError

    def drop_port(self, side: Side, port: str) -> None:
        """A network agent takes a port off the integration bridge; its device stays."""
        raise NotImplementedError

    def say_installed(self, side: Side, port: str) -> None:
        """OVN's controller has wired a port."""
        raise NotImplementedError

    def marked_by_libvirt(self, side: Side, port: str, vm_uuid: str) -> None:
        """A port's VM is said in libvirt's word, `vm-id`, and no longer in os-vif's."""
        raise NotImplementedError

    def add_macvtap(self, side: Side, parent: str, mac: str) -> None:
        """A macvtap of somebody else's, in bridge mode."""
        raise NotImplementedError

    def break_stream(self) -> None:
        """The memory stream from `a` to `b` is lost; the link is whole again afterwards."""
        raise NotImplementedError

    def export_disks(self, vm: Vm) -> None:
        """The QEMU on `a` offers the guest's first disk over NBD."""
        raise NotImplementedError

    def exports(self, vm: Vm) -> list[str]:
        """What the QEMU on `a` offers over NBD."""
        raise NotImplementedError

    def disk_speeds(self, vm: Vm) -> list[int]:
        """Limits, in bytes/s, of the disks of the copy under way on `a` that are not yet whole there."""
        raise NotImplementedError

    def stream_of(self, vm: Vm) -> set[str]:
        """What the stream of the copy under way on `a` is made of, by what QEMU itself is set to."""
        raise NotImplementedError

    async def vm(self, *disks: str) -> Vm:
        """As `make_vm`; described by its host, `local` decided."""
        vm: Vm = await self.a.hypervisor.vm(self.make_vm(disks or ("shared",)))
        return vm.model_copy(update={"disks": tuple(self.a.local(d) for d in vm.disks)})

    async def prepare(
        self,
        vm: Vm,
        epoch: int,
        *,
        source: Side,
        destination: Side,
        flags: tuple[str, ...] = (),
        parameters: dict[str, int | str] | None = None,
        limit_bytes_s: int | None = None,
        **more: Any,
    ) -> CopyPlan:
        """P4-P11 by hand, and the epoch written: everything M4 needs. `flags`: beside those of every copy."""
        numbers: dict[str, int | str] = {}
        if limit_bytes_s is not None:
            numbers["bandwidth"] = limit_bytes_s >> 20
            numbers |= {"bandwidth.postcopy": limit_bytes_s >> 20} if "POSTCOPY" in flags else {}
        more |= {"flags": ("LIVE", "PEER2PEER", *flags), "parameters": numbers | (parameters or {})}
        migration_id = str(uuids.uuid4())
        await source.hypervisor.mark(vm.uuid, migration_id, epoch)
        copied = tuple(d for d in vm.disks if d.local)
        created = await destination.storage.plan_targets(vm.uuid, copied)
        made = await destination.storage.reserve_targets(created, migration_id)
        await destination.storage.create_targets(copied, made)
        disks = []
        for disk in vm.disks:
            if disk.kind is DiskKind.ISCSI:
                disk = await destination.iscsi.connect(await destination.iscsi.attach(disk, source.name))  # noqa: PLW2901
            facts: dict[str, Any] = {
                "target": disk.target,
                "kind": disk.kind,
                "path": disk.path,
                "iscsi": disk.iscsi,
            }
            disks.append(DestinationDisk(**facts, copied=bool(disk.local), from_base=bool(disk.backing_shared)))
        if "TUNNELLED" in flags:
            more = {"destination_uri": destination.tunnel_uri, "migrate_uri": None} | more
        nics = []
        for index, nic in enumerate(vm.nics):
            known = await source.vif.describe(nic) or nic
            tap = f"tap{vm.uuid[:8]}{index}"
            plugged = await destination.vif.plug(known, vm_uuid=vm.uuid, device=tap)
            await destination.vif.make_way(plugged)
            facts = {"mac": nic.mac, "device": plugged.device or "", "bridge": plugged.bridge or ""}
            facts |= {"port_id": plugged.port_id or "", "plug": plugged.plug, "parent": plugged.parent}
            nics.append(DestinationNic(**facts, vlan=plugged.vlan, mode=plugged.mode))
        uris = {"destination_uri": destination.uri, "migrate_uri": destination.stream}
        return CopyPlan(migration_id=migration_id, epoch=epoch, disks=tuple(disks), nics=tuple(nics), **uris | more)

    async def unplug(self, side: Side, plan: CopyPlan) -> None:
        """R6 on `side` by hand."""
        for nic in plan.nics:
            await side.vif.unplug(Nic.model_validate(nic.model_dump()))

    async def clear(self, vm: Vm, epoch: int, side: Side) -> None:
        """F2-F10 on `side` by hand."""
        for disk in vm.disks:
            if disk.kind is DiskKind.ISCSI:
                await side.iscsi.disconnect(disk)
                await side.iscsi.detach(disk)
        for nic in vm.nics:
            port = await side.vif.describe(nic)
            if port is not None:
                await side.vif.unplug(port)
        await side.hypervisor.undefine(vm.uuid, epoch)
        files = tuple(d.path for d in vm.disks if d.local and d.path)
        await side.storage.remove(Created(files=files, directories=await side.storage.directories_of(vm.uuid)))

    async def settled(self, side: Side, uuid: str) -> Any:
        """What `side` sees once no migration job of the guest is left there."""
        while (seen := await side.hypervisor.observe(uuid)).job_active:
            pass
        return seen


async def outcome(call: Any) -> str:
    """The code of the error a call raises, else the repr of its answer."""
    try:
        return repr(await call)
    except SternaError as error:
        return error.code
