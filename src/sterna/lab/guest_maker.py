"""Makes lab guests: addresses, disks, domain. Called by `Lab.create_vm`."""

import re
import uuid
from collections.abc import Sequence

from sterna.lab import secrets
from sterna.lab.domain_xml import disk_path, domain_xml
from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from sterna.lab.iscsi import IscsiTarget
from sterna.lab.places import FURTHER_NICS, SHARED, TENANT_VLAN, initiator_name, target_name
from sterna.lab.record import DiskRecord, GuestRecord, LabRecord, NicRecord, Pace

DISK_KINDS = ("shared", "local", "iscsi", "overlay", "volume", "luks", "chap")
VOLUME_MIB = {"shared": 256, "local": 1024, "iscsi": 256, "overlay": 1024, "luks": 256, "chap": 256}
BASE_MIB = 64
"""How much of an overlay's base is data: none of it must travel."""
FIRST_ADDRESS, LAST_ADDRESS = 20, 250


def make_guest(  # noqa: PLR0913 - every keyword is one fact about the guest
    host: LabHost,
    lab: LabRecord,
    iscsi: IscsiTarget,
    *,
    name: str,
    memory_mib: int,
    dirty_mib_s: int,
    disks: Sequence[str],
    nics: Sequence[str] = (),
    port_id: str | None = None,
    pace: Pace = "usual",
) -> GuestRecord:
    """Makes the disks of a new guest, then defines and starts it on `host`. Raises LabError."""
    _check(lab, name, memory_mib, disks)
    if unknown := [kind for kind in nics if kind not in FURTHER_NICS]:
        raise LabError(f"unknown kind of NIC: {', '.join(unknown)}; there are {', '.join(FURTHER_NICS)}")
    record = GuestRecord(
        name=name,
        uuid=str(uuid.uuid4()),
        mac="",
        address="",
        port_id=port_id or str(uuid.uuid4()),
        wired_by_agent=port_id is not None,
        pace=pace,
        memory_mib=memory_mib,
        dirty_mib_s=dirty_mib_s,
        disks=_disk_records(disks),
    )
    number = _free_number(lab)
    record.address = f"10.74.0.{number}"
    record.mac = f"52:54:00:74:00:{number:02x}"
    record.nics = _nic_records(nics, number)
    lab.guests_made += 1
    for disk in record.disks:
        _make_disk(host, iscsi, record, disk)
    for nic in record.nics:
        if nic.kind == "ovs-hybrid":
            _plug_hybrid(host, record, nic)
    host.run(["sh", "-c", "cat >/run/domain.xml"], stdin=domain_xml(record, host.name, lab.accelerator))
    host.virsh("define", "/run/domain.xml")
    host.virsh("start", name)
    return record


def _disk_records(disks: Sequence[str]) -> list[DiskRecord]:
    """Each is a kind, or a kind and the id of a volume that exists: `iscsi:ID`."""
    return [
        DiskRecord(kind=kind, id=made or str(uuid.uuid4()), device=f"vd{'abcdefgh'[position]}")
        for position, (kind, _, made) in enumerate(spec.partition(":") for spec in disks)
    ]


def _nic_records(kinds: Sequence[str], number: int) -> list[NicRecord]:
    """The NICs beside the first one, with addresses of the guest's number."""
    return [
        NicRecord(
            kind=kind,
            mac=f"52:54:00:74:{position:02x}:{number:02x}",
            address=f"{FURTHER_NICS[kind][1]}.{number}",
            port_id=str(uuid.uuid4()),
        )
        for position, kind in enumerate(kinds, start=1)
    ]


def unplug_hybrid(host: LabHost, nic: NicRecord) -> None:
    """Removes what `_plug_hybrid`, or Sterna, made for a NIC on `host`; nothing there is not an error."""
    name = nic.port_id[:11]
    lines = (
        f"for port in $(ls /sys/class/net/qbr{name}/brif 2>/dev/null); do ip link del $port; done",
        f"ip link del qbr{name} 2>/dev/null",
        f"ovs-vsctl --if-exists del-port qvo{name}",
    )
    host.run(["sh", "-c", "\n".join(lines)])


def _plug_hybrid(host: LabHost, guest: GuestRecord, nic: NicRecord) -> None:
    """What Nova makes before it starts a guest with OVS hybrid plug."""
    bridge, inner, outer = (f"{kind}{nic.port_id[:11]}" for kind in ("qbr", "qvb", "qvo"))
    ids = {"iface-id": nic.port_id, "iface-status": "active", "attached-mac": nic.mac, "vm-uuid": guest.uuid}
    written = " ".join(f"external_ids:{key}='\"{value}\"'" for key, value in ids.items())
    lines = (
        f"ip link add {bridge} type bridge forward_delay 0 stp_state 0 ageing_time 0 mcast_snooping 0",
        f"ip link add {inner} type veth peer name {outer}",
        f"ip link set {inner} master {bridge} up",
        f"ip link set {outer} up",
        f"ip link set {bridge} up",
        f"ovs-vsctl add-port br-int {outer} tag={TENANT_VLAN} -- set Interface {outer} {written}",
    )
    host.run(["sh", "-ec", "\n".join(lines)])


def _check(lab: LabRecord, name: str, memory_mib: int, disks: Sequence[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}", name):
        raise LabError(f"{name!r} is no name for a guest: letters, digits, _ . - please")
    if name in lab.guests:
        raise LabError(f"there is a guest {name!r} in the lab already")
    if memory_mib < 128:
        raise LabError("a guest needs at least 128 MiB")
    if unknown := [spec for spec in disks if spec.partition(":")[0] not in DISK_KINDS]:
        raise LabError(f"unknown kind of disk: {', '.join(unknown)}; there are {', '.join(DISK_KINDS)}")
    if len(disks) > 8:
        raise LabError("a guest has at most 8 disks")


def _free_number(lab: LabRecord) -> int:
    """The last byte of a guest's address, not used by another and not the one given out last."""
    used = {int(guest.address.rpartition(".")[2]) for guest in lab.guests.values()}
    span = LAST_ADDRESS - FIRST_ADDRESS
    for step in range(span):
        number = FIRST_ADDRESS + (lab.guests_made + step) % span
        if number not in used:
            return number
    raise LabError(f"the lab has addresses for {span} guests only")


def _make_disk(host: LabHost, iscsi: IscsiTarget, guest: GuestRecord, disk: DiskRecord) -> None:
    path = disk_path(guest, disk)
    if path is None:
        if disk.kind in ("iscsi", "chap"):
            iscsi.create(disk.id, VOLUME_MIB[disk.kind])
        if disk.kind == "chap":
            iscsi.want_login(disk.id, secrets.WORD)
            secrets.define(host, disk.id, "iscsi", target_name(disk.id))
        iscsi.admit(disk.id, initiator_name(host.name))
        return
    size_mib = VOLUME_MIB[disk.kind]
    host.run(["mkdir", "-p", path.rpartition("/")[0]])
    if disk.kind == "luks":
        secrets.define(host, disk.id, "volume", path)
        word = ["--object", f"secret,id=word,data={secrets.WORD}", "-o", "key-secret=word,iter-time=10"]
        host.run(["qemu-img", "create", "-q", "-f", "luks", *word, path, f"{size_mib}M"])
        return
    if disk.kind == "overlay":
        _make_overlay(host, path, f"{SHARED}/{disk.id}.qcow2", size_mib)
        return
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", path, f"{size_mib}M"])


def _make_overlay(host: LabHost, path: str, base: str, size_mib: int) -> None:
    """A local disk on a base that all hosts see, the end of which is data."""
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", base, f"{size_mib}M"])
    fill = f"write -q -P 90 {size_mib - BASE_MIB}M {BASE_MIB}M"
    host.run(["qemu-io", "-f", "qcow2", "-c", fill, base])
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path])
