"""The domain XML of a lab guest, as an operator or Nova would write it."""

from lxml import etree

from sterna.lab.places import (
    GUEST,
    INSTANCES,
    ISCSI_PORTAL_PORT,
    LAB_ADDRESS,
    SHARED,
    TENANT_VLAN,
    initiator_name,
    target_name,
)
from sterna.lab.record import DiskRecord, GuestRecord, NicRecord, Pace

SPARE_SLOTS = 3
"""PCI devices that can be given to a running guest."""
CMDLINE = "console=ttyS0 panic=0 quiet nokaslr mitigations=off tsc=reliable random.trust_cpu=on cryptomgr.notests"
"""Without the self-tests of the kernel's ciphers an emulated guest boots with half the instructions."""
PACES: dict[Pace, str] = {
    "busy": " sterna.tick=1 sterna.blocks=128",
    "usual": "",
    "calm": " sterna.blocks=8",
}
"""With two disks and emulated, a guest that dirties 5 MiB/s takes 30 %, 14 % and 10 % of a core."""


def domain_xml(guest: GuestRecord, host: str, accelerator: str) -> str:
    """The XML that defines `guest` on `host`."""
    kvm = accelerator == "kvm"
    domain = etree.Element("domain", type="kvm" if kvm else "qemu")
    _text(domain, "name", guest.name)
    _text(domain, "uuid", guest.uuid)
    _text(domain, "memory", str(guest.memory_mib), unit="MiB")
    _text(domain, "vcpu", "1")
    boot = _child(domain, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine="q35")
    _text(boot, "kernel", f"{GUEST}/vmlinuz")
    _text(boot, "initrd", f"{GUEST}/initramfs")
    _text(boot, "cmdline", command_line(guest))
    _child(_child(domain, "features"), "acpi")
    if kvm:
        _child(domain, "cpu", mode="host-passthrough")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", action)
    devices = _child(domain, "devices")
    _child(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(len(guest.disks) + 1 + len(guest.nics) + SPARE_SLOTS):  # libvirt fills those there are first
        _child(devices, "controller", type="pci", model="pcie-root-port")
    for disk in guest.disks:
        _disk(devices, guest, disk, host)
    _interface(devices, guest)
    for nic in guest.nics:
        _further_interface(devices, nic)
    serial = _child(devices, "serial", type="file")
    _child(serial, "source", path=serial_log(guest.name), append="on")
    _child(devices, "panic", model="isa")
    _child(devices, "memballoon", model="none")
    return etree.tostring(domain, pretty_print=True, encoding="unicode")


def command_line(guest: GuestRecord) -> str:
    """The guest kernel's command line, with the workload's settings."""
    area = max(8, guest.memory_mib // 4)
    more = "".join(f" sterna.address{n}={nic.address}/24" for n, nic in enumerate(guest.nics, start=1))
    more += PACES[guest.pace]
    return f"{CMDLINE} sterna.address={guest.address}/24{more} sterna.rate={guest.dirty_mib_s} sterna.area={area}"


def serial_log(name: str) -> str:
    """Where a guest's serial console is written, on the host it runs on."""
    return f"/var/log/libvirt/qemu/{name}-serial.log"


def disk_path(guest: GuestRecord, disk: DiskRecord) -> str | None:
    """The file behind a disk, as its host sees it; None for a disk that is no file."""
    if disk.kind == "shared":
        return f"{SHARED}/{disk.id}.qcow2"
    if disk.kind == "local":
        first = next(other for other in guest.disks if other.kind == "local") == disk
        return f"{INSTANCES}/{guest.uuid}/disk{'' if first else '-' + disk.device}.qcow2"
    if disk.kind == "luks":
        return f"{SHARED}/{disk.id}.luks"
    if disk.kind == "overlay":
        return f"{INSTANCES}/{guest.uuid}/overlay-{disk.device}.qcow2"
    return None


def _disk(devices: etree._Element, guest: GuestRecord, disk: DiskRecord, host: str) -> None:
    path = disk_path(guest, disk)
    element = _child(devices, "disk", type="network" if path is None else "file", device="disk")
    form = "raw" if path is None or disk.kind == "luks" else "qcow2"
    _child(element, "driver", name="qemu", type=form, cache="none", discard="unmap")
    if path is None:
        source = _child(element, "source", protocol="iscsi", name=f"{target_name(disk.id)}/1")
        _child(source, "host", name=LAB_ADDRESS, port=str(ISCSI_PORTAL_PORT))
        _child(_child(source, "initiator"), "iqn", name=initiator_name(host))
        if disk.kind == "chap":
            _child(_child(source, "auth", username=disk.id), "secret", type="iscsi", usage=target_name(disk.id))
    else:
        source = _child(element, "source", file=path)
        if disk.kind == "luks":
            _child(_child(source, "encryption", format="luks"), "secret", type="passphrase", uuid=disk.id)
    _child(element, "target", dev=disk.device, bus="virtio")
    _text(element, "serial", disk.id)


def _interface(devices: etree._Element, guest: GuestRecord) -> None:
    nic = _child(devices, "interface", type="bridge")
    _child(nic, "mac", address=guest.mac)
    _child(nic, "source", bridge="br-int")
    _child(_child(nic, "virtualport", type="openvswitch"), "parameters", interfaceid=guest.port_id)
    if not guest.wired_by_agent:
        _child(_child(nic, "vlan"), "tag", id=str(TENANT_VLAN))
    _model(nic)


def _further_interface(devices: etree._Element, nic: NicRecord) -> None:
    macvtap = nic.kind.startswith("macvtap")
    interface = _child(devices, "interface", type="direct" if macvtap else "bridge")
    _child(interface, "mac", address=nic.mac)
    if macvtap:
        alone = nic.kind.endswith("passthrough")
        _child(interface, "source", dev="phys1" if alone else "phys0", mode="passthrough" if alone else "bridge")
    else:
        _child(interface, "source", bridge=f"qbr{nic.port_id[:11]}" if nic.kind == "ovs-hybrid" else "br-lan")
    _model(interface)


def _model(nic: etree._Element) -> None:
    _child(nic, "model", type="virtio")
    # User-space Open vSwitch passes unfinished checksums and oversized segments on as they are.
    driver = _child(nic, "driver", name="qemu")
    off = dict.fromkeys(("csum", "tso4", "tso6", "ecn", "ufo"), "off")
    _child(driver, "host", gso="off", **off)
    _child(driver, "guest", **off)


def _child(parent: etree._Element, tag: str, **attributes: str) -> etree._Element:
    return etree.SubElement(parent, tag, attributes)


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    _child(parent, tag, **attributes).text = text
