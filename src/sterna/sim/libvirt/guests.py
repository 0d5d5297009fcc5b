"""What befalls guests and hosts from outside: births, writes, deaths, power cuts."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace

from sterna.domain.errors import NotFound
from sterna.domain.model import DEFAULT_PLUG, Disk, DiskKind, IscsiSource, Nic, SecretRef
from sterna.domain.plugs import PASSTHROUGH, Joins, hybrid_names, plug_type
from sterna.domain.secrets import Secret
from sterna.sim.libvirt import qemu
from sterna.sim.world.host import SimHost
from sterna.sim.world.iscsi import SimTarget
from sterna.sim.world.things import MIB, Definition, SimDomain, SimFile, SimGuest, SimPort, SimSecret
from sterna.sim.world.world import World

DISK_BYTES = 256 * MIB
WRITTEN_BYTES = 16 * MIB


def uuid_of(name: str) -> str:
    """The UUID `add_vm` gives a VM of this name."""
    return str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{name}.vm.sterna"))


def _target(number: int) -> str:
    """`vda` ... `vdz`, `vdaa`, as libvirt names them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    first, last = divmod(number, len(letters))
    return f"vd{letters[first - 1] if first else ''}{letters[last]}"


def add_vm(  # noqa: PLR0913 - a convenience for tests: every keyword is one fact about the VM
    world: World,
    host_name: str,
    name: str,
    *,
    disks: tuple[str, ...] = ("shared",),
    nics: int = 1,
    memory_bytes: int = 512 * MIB,
    dirty_bytes_per_s: int = 80 * MIB,
    persistent: bool = True,
    autostart: bool = False,
    running: bool = True,
    vlan: int | None = 100,
    plugs: tuple[str, ...] = (),
) -> str:
    """A VM as the lab makes them: its files, targets and admissions, ports with a tag, bindings. Its UUID.

    `plugs`: a NIC of each of these plug types, instead of `nics` of OVS normal plug.
    """
    host, uuid = world.hosts[host_name], uuid_of(name)
    made = tuple(_make_disk(world, host, name, _target(i), kind) for i, kind in enumerate(disks))
    definition = Definition(
        name=name,
        memory_bytes=memory_bytes,
        disks=made,
        nics=tuple(
            _make_nic(world, host, uuid, i, vlan, plug) for i, plug in enumerate(plugs or (DEFAULT_PLUG,) * nics)
        ),
    )
    world.guests[uuid] = SimGuest(uuid, dirty_bytes_per_s)
    domain = host.domains[uuid] = SimDomain(uuid, inactive=definition, autostart=autostart and persistent)
    world.tell(host_name, "domain", uuid, "defined")
    if running or not persistent:
        qemu.start(world, host, uuid)
        guest_writes(world, uuid)
    if not persistent:
        domain.inactive = None
    return uuid


def guest_writes(world: World, uuid: str) -> None:
    """The running guest writes to all its writable disks: a copy without these bytes is stale from now on."""
    (name,) = world.running(uuid)
    host, guest = world.hosts[name], world.guests[uuid]
    live = host.domains[uuid].live
    assert live is not None
    guest.writes += 1
    for disk in live.disks:
        file = _file_of(world, host, disk)
        if file is not None and not disk.read_only:
            file.content = guest.written[disk.target] = f"{live.name}/{disk.target}#{guest.writes}"
            world.tell(name, "file", disk.path or disk.target, "guest wrote")


def kill_qemu(world: World, host_name: str, uuid: str) -> bool:
    """kill -9 of a guest's QEMU; False where there is none."""
    return _end(world, host_name, uuid, reason="crashed", event="stopped", detail="failed")


def shut_down_guest(world: World, uuid: str) -> None:
    """The guest powers itself off, wherever it runs."""
    for name in world.running(uuid):
        world.emit(world.hosts[name], uuid, "shutdown", "guest")
        _end(world, name, uuid, reason="shutdown", event="shutdown", detail="shutdown")


def start(world: World, host_name: str, uuid: str) -> None:
    """`virsh start`. Raises LibvirtSays."""
    if uuid not in world.hosts[host_name].domains:
        raise NotFound(f"{host_name}: no domain {uuid}")
    qemu.start(world, world.hosts[host_name], uuid)


def power_off(world: World, host_name: str) -> None:
    """Pull the plug: libvirtd, QEMUs, taps and Linux bridges' ports are gone at once; files, Open vSwitch's records
    and admissions stay."""
    host = world.hosts[host_name]
    host.powered = False
    host.libvirtd_up = False
    for uuid in tuple(host.domains):
        _end(world, host_name, uuid, reason="crashed", event="stopped", detail="failed")
    for device in sorted(host.taps):
        if device in host.ports and plug_type(host.ports[device].plug).joins is not Joins.OPEN_VSWITCH:
            world.remove_port(host_name, device)
        else:
            world.remove_tap(host_name, device)
    for name in sorted(host.links):
        world.remove_link(host_name, name)


def power_on(world: World, host_name: str) -> None:
    """Boot it: libvirtd comes up and starts what is marked autostart, come what may."""
    host = world.hosts[host_name]
    host.powered = True
    host.libvirtd_up = True
    for port_id, hosts in world.bindings.items():
        if hosts.get(host_name):
            world.rebind(port_id, host_name)  # its network agent asks for its ports' details
    for domain in tuple(host.domains.values()):
        if domain.autostart and not domain.active:
            try:
                qemu.start(world, host, domain.uuid)
            except qemu.LibvirtSays:
                continue


def _end(world: World, host_name: str, uuid: str, *, reason: str, event: str, detail: str) -> bool:
    host = world.hosts[host_name]
    domain = host.domains.get(uuid)
    if domain is None or not domain.active:
        return False
    qemu.end(world, host, domain, reason=reason, event=event, detail=detail)
    return True


def _make_nic(world: World, host: SimHost, uuid: str, index: int, vlan: int | None, plug: str) -> Nic:
    seed = uuids.UUID(uuid).hex
    mac = f"52:54:00:{seed[0:2]}:{seed[2:4]}:{index:02x}"
    port_id = str(uuids.uuid5(uuids.UUID(uuid), f"port-{index}"))
    plug, _, mode = plug.partition(":")
    kind = plug_type(plug)
    if kind.joins is Joins.LINUX_BRIDGE:
        return Nic(mac=mac, plug=plug, bridge="br-lan", mtu=1500)
    if kind.joins is Joins.PARENT:
        parent = "phys1" if mode == PASSTHROUGH else "phys0"
        return Nic(mac=mac, plug=plug, parent=parent, mode=mode or "bridge", mtu=1500)
    if kind.joins is Joins.FUNCTION:
        used = {n.pci for d in host.domains.values() for n in d.definition.nics}
        mac = f"{mac[:-2]}00"  # its standby's, the first NIC's
        return Nic(mac=mac, plug=plug, pci=next(pci for pci in host.functions if pci not in used))
    world.port_owners[port_id] = uuid
    world.bind(port_id, host.name, True)
    if kind.keeps_bridge:
        ids = {"iface-id": port_id, "vm-uuid": uuid}
        _plug_hybrid(world, host, SimPort("", "br-int", vlan, 1500, ids, plug=plug, mac=mac))
        return Nic(mac=mac, plug=plug, port_id=port_id, mtu=1500)
    return Nic(mac=mac, plug=plug, port_id=port_id, bridge="br-int", vlan=vlan, mtu=1500)


def _plug_hybrid(world: World, host: SimHost, like: SimPort) -> None:
    """What Nova makes before it starts the guest."""
    names = hybrid_names(like.external_ids["iface-id"])
    for name in names:
        world.add_link(host.name, name)
    ids = {"iface-status": "active", "attached-mac": like.mac}
    port = replace(like, device=names[2], external_ids=like.external_ids | ids)
    world.put_port(host.name, port)


def _make_disk(world: World, host: SimHost, name: str, target: str, kind: str) -> Disk:
    if kind in ("luks", "chap"):  # as `shared` and `iscsi`, opened with a secret
        disk = _make_disk(world, host, name, target, "shared" if kind == "luks" else "iscsi")
        return disk.model_copy(update={"secrets": (_make_secret(host, disk),)})
    serial = str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{name}-{target}"))
    file = SimFile(DISK_BYTES, "raw", f"{name}/{target}#0", WRITTEN_BYTES)
    if kind in ("iscsi", "block"):
        iqn = f"iqn.2026-11.org.sterna:{name}-{target}"
        world.iscsi.targets[iqn] = SimTarget(iqn, file, uuid_of(name))
        world.admit(iqn, host.initiator, host.name)
        source = IscsiSource(target=iqn, lun=1, portal_host=world.iscsi.portal_host, initiator=host.initiator)
        disk = Disk(target=target, kind=DiskKind.ISCSI, volume_id=serial, iscsi=source, capacity_bytes=DISK_BYTES)
        if kind == "block":
            path = f"/dev/disk/by-id/wwn-0x{uuids.UUID(serial).hex[:16]}"
            disk = disk.model_copy(update={"kind": DiskKind.BLOCK, "path": path})
            world.attach_device(host.name, path, iqn)
        return disk
    folder = "/srv/shared" if kind == "shared" else f"{host.instances_dir}/{uuid_of(name)}"
    path = f"{folder}/{name}-{target}.img"
    world.make_directory(host.name, folder)
    world.put_file(host.name, path, file)
    base = None
    if kind == "overlay":
        base = f"/srv/shared/{name}-{target}.base"
        world.put_file(host.name, base, SimFile(DISK_BYTES, "raw", f"{name}/{target}#base", WRITTEN_BYTES))
    return Disk(
        target=target,
        kind=DiskKind.FILE,
        path=path,
        capacity_bytes=DISK_BYTES,
        backing_path=base,
        backing_format="raw" if base else None,
    )


def _make_secret(host: SimHost, disk: Disk) -> SecretRef:
    """A LUKS disk names its secret by UUID, an iSCSI disk by usage."""
    where = disk.path or (disk.iscsi.target if disk.iscsi else "")
    kind = "iscsi" if disk.iscsi else "volume"
    about = Secret(uuid=str(uuids.uuid5(uuids.NAMESPACE_DNS, f"secret of {where}")), kind=kind, usage=where)
    host.secrets[about.uuid] = SimSecret(about, f"value of {where}".encode())
    if disk.iscsi:
        return SecretRef(kind=kind, usage=where, username="tern")
    return SecretRef(kind=kind, uuid=about.uuid)


def _file_of(world: World, host: SimHost, disk: Disk) -> SimFile | None:
    if disk.kind is DiskKind.FILE and disk.path:
        return host.file(disk.path)
    if disk.iscsi and disk.iscsi.target in world.iscsi.targets:
        return world.iscsi.targets[disk.iscsi.target].volume
    return None
