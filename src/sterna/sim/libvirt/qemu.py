"""Starting, pausing and ending simulated QEMUs: the only code that changes a guest's state."""

from __future__ import annotations

import posixpath
from collections.abc import Container
from dataclasses import replace

from sterna.domain.model import Disk, DiskKind, GuestState, Nic
from sterna.domain.plugs import PASSTHROUGH, Joins, hybrid_names, plug_type
from sterna.domain.secrets import refers
from sterna.sim.world.host import SimHost
from sterna.sim.world.iscsi import Session
from sterna.sim.world.things import INCOMING, TAP_BEHIND, Definition, SimDomain, SimFile, SimPort
from sterna.sim.world.world import World


class LibvirtSays(Exception):
    """libvirt refused or failed; the text is as libvirt would word it."""


def start_incoming(world: World, host: SimHost, uuid: str, live: Definition) -> SimDomain:
    """Start a QEMU that waits for a guest's memory. Raises LibvirtSays, leaving nothing behind."""
    _check_identity(host, uuid, live)
    _check_needs(world, host, live)
    domain = host.domains.setdefault(uuid, SimDomain(uuid))
    domain.ran = False
    domain.completed = None
    _make_nvram(world, host, live)
    _occupy(world, host, domain, live)
    _check_alive(domain)
    _change(world, host, domain, GuestState.PAUSED, INCOMING, ("started-incoming", "migrated"))
    _check_alive(domain)
    return domain


def _make_nvram(world: World, host: SimHost, live: Definition) -> None:
    """From its template, before there is a QEMU. It stays when the guest does not arrive."""
    for state in live.firmware:
        if state.kind == "nvram" and host.file(state.path) is None:
            world.make_directory(host.name, posixpath.dirname(state.path))
            world.put_file(host.name, state.path, SimFile(1 << 17, content="template"))


def start(world: World, host: SimHost, uuid: str) -> None:
    """Boot a defined guest from cold, as `virsh start` or autostart does. Raises LibvirtSays."""
    domain = host.domains[uuid]
    if domain.active or domain.inactive is None:
        raise LibvirtSays("Requested operation is not valid: domain is already running")
    _check_needs(world, host, domain.inactive)
    _occupy(world, host, domain, domain.inactive)
    _check_alive(domain)
    run(world, host, domain, reason="booted", event="resumed", detail="booted")


def run(world: World, host: SimHost, domain: SimDomain, *, reason: str, event: str, detail: str = "") -> None:
    """Let its vCPUs run."""
    domain.ran = True
    _change(world, host, domain, GuestState.RUNNING, reason, (event, detail))


def pause(world: World, host: SimHost, domain: SimDomain, *, reason: str, event: str) -> None:
    """Stop its vCPUs; its QEMU stays."""
    _change(world, host, domain, GuestState.PAUSED, reason, (event, ""))


def end(world: World, host: SimHost, domain: SimDomain, *, reason: str, event: str, detail: str = "") -> None:
    """Its QEMU is gone, with the logins and taps that were libvirt's; a transient domain is forgotten.

    A copy of this guest is notified afterwards.
    """
    live, copy = domain.live, domain.job
    if live is None:
        return
    _open_files(host, domain.uuid, live, held=False)
    domain.live, domain.interlocked, domain.held, domain.max_downtime_ms = None, False, False, None
    domain.sent = ""
    if domain.inactive is None:
        del host.domains[domain.uuid]
    _change(world, host, domain, GuestState.SHUTOFF, reason, (event, detail))
    for nic in live.nics:
        if nic.managed and nic.device:
            world.remove_port(host.name, nic.device)
    world.log_out(host.name, domain.uuid)
    if copy is not None:
        domain.job = None
        copy.qemu_gone(host.name)


def _change(
    world: World, host: SimHost, domain: SimDomain, state: GuestState, reason: str, event: tuple[str, str]
) -> None:
    """The event goes out first: what watchers do to the world because of this comes after it."""
    domain.state, domain.reason = state, reason
    world.emit(host, domain.uuid, *event)
    world.tell(host.name, "domain", domain.uuid, f"{state} ({reason})")


def _check_identity(host: SimHost, uuid: str, live: Definition) -> None:
    for other in host.domains.values():
        if other.uuid == uuid and other.active:
            raise LibvirtSays(f"Requested operation is not valid: domain is already active as '{live.name}'")
        if other.uuid != uuid and other.definition.name == live.name:
            raise LibvirtSays(f"operation failed: domain '{live.name}' already exists with uuid {other.uuid}")


def _check_needs(world: World, host: SimHost, live: Definition) -> None:
    if host.memory_free_bytes < live.memory_bytes:
        raise LibvirtSays("internal error: cannot set up guest memory 'pc.ram': Cannot allocate memory")
    for nic in live.nics:
        check_nic(host, nic)
    for disk in live.disks:
        _check_disk(world, host, disk)


def check_nic(host: SimHost, nic: Nic) -> None:
    """May a QEMU be given this NIC? Raises LibvirtSays."""
    joins = plug_type(nic).joins
    if joins is Joins.PARENT:
        _check_parent(host, nic)
    elif joins is Joins.FUNCTION:
        _check_function(host, nic)
    elif nic.managed:
        bridge, there = _bridge_for(host, nic)
        if bridge not in there:
            raise LibvirtSays(f"Cannot get interface MTU on '{bridge}': No such device")
        if nic.device in host.taps:
            raise LibvirtSays(f"Requested operation is not valid: The {nic.device} interface already exists")
    elif nic.device not in host.taps:
        raise LibvirtSays("unsupported configuration: target managed='no' but specified dev doesn't exist")
    elif host.users_of(nic.device or ""):
        raise LibvirtSays(f"Unable to create tap device {nic.device}: Device or resource busy")


def _bridge_for(host: SimHost, nic: Nic) -> tuple[str | None, Container[str | None]]:
    """The bridge that libvirt would put a tap of its own on, and the bridges of that kind."""
    kind = plug_type(nic)
    if kind.keeps_bridge:
        return hybrid_names(nic.port_id or "")[0], host.links
    return nic.bridge, host.linux_bridges if kind.joins is Joins.LINUX_BRIDGE else host.bridges


def _check_function(host: SimHost, nic: Nic) -> None:
    if nic.pci not in host.functions:
        raise LibvirtSays(f"Device {nic.pci} not found: could not access /sys/bus/pci/devices/{nic.pci}")
    if nic.pci in host.guests_functions():
        raise LibvirtSays(f"Requested operation is not valid: PCI device {nic.pci} is in use")


def _check_parent(host: SimHost, nic: Nic) -> None:
    if nic.parent not in host.parents:
        raise LibvirtSays(f"Cannot get interface flags on '{nic.parent}': No such device")
    above = host.on_parent(nic.parent)
    if above and (nic.mode == PASSTHROUGH or any(p.mode == PASSTHROUGH for p in above)):
        raise LibvirtSays(f"error creating macvtap interface on {nic.parent}: Device or resource busy")


def _check_secrets(host: SimHost, disk: Disk) -> None:
    for ref in disk.secrets:
        found = next((s for s in host.secrets.values() if refers(ref, s.about)), None)
        if found is None:
            raise LibvirtSays(f"Secret not found: no secret with matching {ref.words}")
        if found.value is None:
            raise LibvirtSays(f"Secret not found: secret '{found.about.uuid}' does not have a value")


def _check_disk(world: World, host: SimHost, disk: Disk) -> None:
    _check_secrets(host, disk)
    if disk.kind is DiskKind.FILE and disk.path:
        if host.file(disk.path) is None:
            raise LibvirtSays(f"internal error: Could not open '{disk.path}': No such file or directory")
        if disk.path in host.denied:
            raise LibvirtSays(f"internal error: Could not open '{disk.path}': Permission denied")
    elif disk.kind is DiskKind.BLOCK and disk.path not in host.devices:
        raise LibvirtSays(f"internal error: Could not open '{disk.path}': No such file or directory")
    elif disk.kind is DiskKind.ISCSI and disk.iscsi:
        if not world.iscsi.up:
            raise LibvirtSays("internal error: iSCSI: Failed to connect to LUN : Connection refused")
        if not world.iscsi.admits(disk.iscsi.target, disk.iscsi.initiator or host.initiator):
            raise LibvirtSays(
                "internal error: iSCSI: Failed to connect to LUN : Failed to log in to target. "
                "Status: Target not found(515)"
            )


def _check_alive(domain: SimDomain) -> None:
    """A watcher may have ended the QEMU while it was starting."""
    if domain.live is None:
        raise LibvirtSays("internal error: process exited while connecting to monitor")


def _occupy(world: World, host: SimHost, domain: SimDomain, live: Definition) -> None:
    """Take what the QEMU holds while it lives: taps that libvirt makes, logins, memory."""
    nics = tuple(plugged_by_libvirt(world, host, domain.uuid, n) if n.managed else n for n in live.nics)
    domain.live = replace(live, nics=nics)
    _open_files(host, domain.uuid, live, held=True)
    for disk in live.disks:
        if disk.kind is DiskKind.ISCSI and disk.iscsi:
            initiator = disk.iscsi.initiator or host.initiator
            world.log_in(Session(disk.iscsi.target, initiator, host.name, domain.uuid))


def _open_files(host: SimHost, uuid: str, live: Definition, *, held: bool) -> None:
    for path in (d.path for d in live.disks if d.kind is DiskKind.FILE and d.path):
        users = host.folder(path).users
        if held:
            users.setdefault(path, set()).add((host.name, uuid))
        else:
            users.get(path, set()).discard((host.name, uuid))


def plugged_by_libvirt(world: World, host: SimHost, uuid: str, nic: Nic) -> Nic:
    """Make what libvirt makes for this NIC; the NIC with its device."""
    kind = plug_type(nic)
    if kind.joins is Joins.FUNCTION:
        return nic
    if kind.joins is Joins.PARENT:
        device = host.free_macvtap()
        port = SimPort(device, nic.parent or "", mtu=nic.mtu, plug=nic.plug, mac=nic.mac, mode=nic.mode)
        world.add_port(host.name, port)
        return nic.model_copy(update={"device": device})
    device = nic.device or host.free_vnet()
    if kind.keeps_bridge or kind.joins is Joins.LINUX_BRIDGE:
        bridge, _ = _bridge_for(host, nic)
        plug = TAP_BEHIND if kind.keeps_bridge else nic.plug
        world.add_port(host.name, SimPort(device, bridge or "", mtu=nic.mtu, plug=plug, mac=nic.mac))
        return nic.model_copy(update={"device": device})
    external_ids = {
        "attached-mac": nic.mac,
        "iface-id": nic.port_id or "",
        "iface-status": "active",
        "vm-id": uuid,
    }
    assert nic.bridge is not None
    known = host.ports.get(device)
    if known is not None:  # `ovs-vsctl --may-exist add-port`: what else is known of the port stays
        if known.bridge != nic.bridge:
            raise LibvirtSays(f"Unable to add port {device} to OVS bridge {nic.bridge}: it is on {known.bridge}")
        external_ids = known.external_ids | external_ids
        tag = known.tag if nic.vlan is None else nic.vlan
        world.add_port(host.name, replace(known, tag=tag, external_ids=external_ids))
        return nic.model_copy(update={"device": device, "external_ids": external_ids})
    world.add_port(host.name, SimPort(device, nic.bridge, nic.vlan, nic.mtu, external_ids, mac=nic.mac))
    return nic.model_copy(update={"device": device, "external_ids": external_ids})
