"""libvirt's domain XML -> `Vm` (protocol P2, P5, P7). Pure: no libvirt, no files.

Called by `hypervisor.py`, which adds what the XML does not say: state, sizes, autostart.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from sterna.adapters.libvirt.xml.disk_forms import read_way
from sterna.adapters.libvirt.xml.metadata import (
    Element,
    find_own,
    parse_xml,
    read_epoch,
    read_image,
    read_nics,
)
from sterna.adapters.libvirt.xml.nic_forms import any_location, pci_address, read_nic
from sterna.adapters.libvirt.xml.references import flash_of, unjudged
from sterna.adapters.libvirt.xml.sizes import size_of
from sterna.domain.immovable import INVTSC, MASTER, SHARED_MEMORY, WITH_STANDBY
from sterna.domain.model import Disk, DiskKind, GuestState, SecretRef, StateFile, Vm
from sterna.domain.state_files import TPM_FOLDER

SAVE_FOLDER = "/var/lib/libvirt/qemu/save"
"""Where libvirt keeps managed saves, by name."""


def describe(xml: str) -> Vm:
    """The VM a domain XML describes; state is SHUTOFF until the caller says otherwise.

    Raises Permanent if the text is not a domain's XML.
    """
    return describe_domain(parse_xml(xml))


def describe_domain(domain: Element) -> Vm:
    """As `describe`, from a parsed <domain>."""
    own = find_own(domain)
    cpu = domain.find("cpu")
    os_type = domain.find("os/type")
    return Vm(
        uuid=domain.findtext("uuid", ""),
        name=domain.findtext("name", ""),
        state=GuestState.SHUTOFF,
        memory_bytes=size_of(domain.find("memory")) or 0,
        vcpus=int(domain.findtext("vcpu", "1")),
        virt_type=domain.get("type", "kvm"),
        arch=os_type.get("arch", "x86_64") if os_type is not None else "x86_64",
        machine=os_type.get("machine", "") if os_type is not None else "",
        emulator=domain.findtext("devices/emulator", ""),
        cpu_xml=etree.tostring(cpu, encoding="unicode", with_tail=False) if cpu is not None else "",
        disks=tuple(read_disk(disk, vm_uuid=domain.findtext("uuid")) for disk in domain.iterfind("devices/disk")),
        nics=tuple(read_nic(nic, read_nics(own)) for nic in domain.iterfind("devices/interface")),
        firmware=tuple(_firmware(domain)),
        immovable=tuple(_immovable(domain)),
        unjudged=unjudged(domain),
        hugepages=domain.find("memoryBacking/hugepages") is not None,
        nvdimm=domain.find("devices/memory[@model='nvdimm']") is not None,
        epoch=read_epoch(own) or 0,
        image=read_image(domain),
    )


def read_disk(disk: Element, vm_uuid: str | None = None) -> Disk:
    """One <disk> of a VM. What Sterna does not know becomes OTHER, with the XML's own word in `detail`."""
    target = disk.find("target")
    driver = disk.find("driver")
    way = read_way(disk)
    if disk.find("transient") is not None:
        why = "transient overlay: its changes live in a hidden file of this host"
        way |= {"kind": DiskKind.OTHER, "detail": why}
    backing = disk.find("backingStore/source")
    return Disk(
        target=target.get("dev", "") if target is not None else "",
        **way,
        device=disk.get("device", "disk"),
        format=driver.get("type", "raw") if driver is not None else "raw",
        volume_id=disk.findtext("serial"),
        vm_uuid=vm_uuid,
        secrets=read_secrets(disk),
        read_only=disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
        sliced=disk.find("source/slices/slice") is not None,
        chain=tuple(dict.fromkeys(_below(disk))),
        data_file=_attr(disk, "source/dataStore/source", "file") or None,
        mirrored=disk.find("mirror") is not None,
        optional=_attr(disk, "source", "startupPolicy") == "optional",
        backing_path=any_location(backing) if backing is not None else None,
        backing_format=_backing_format(disk),
    )


def _below(disk: Element) -> Iterator[str]:
    """Where everything is that the disk stands on, as far as libvirt says it."""
    for store in disk.iter("backingStore", "dataStore"):
        source = store.find("source")
        if (
            source is not None
            and any_location(source)
            and not any(a.tag == "mirror" for a in store.iterancestors())
        ):
            place = any_location(source)
            yield place if place.startswith("/") else f"{source.get('protocol', 'volume')}://{place}"


def read_secrets(disk: Element) -> tuple[SecretRef, ...]:
    """What its QEMU opens it with: <auth> and <encryption> beside or in <source>, and the same of its backing files
    and of a mirror."""
    found = []
    for auth in disk.iter("auth"):
        for secret in auth.findall("secret"):
            kind = secret.get("type") or "iscsi"
            found.append(_secret(secret, kind, auth.get("username")))
    for encryption in disk.iter("encryption"):
        found += [_secret(secret, "volume", None) for secret in encryption.findall("secret")]
    return tuple(dict.fromkeys(found))


def all_secrets(domain: Element) -> Iterator[SecretRef]:
    """What a domain refers to: its disks, and the state of its TPM."""
    for disk in domain.iterfind("devices/disk"):
        yield from read_secrets(disk)
    for encryption in domain.iterfind("devices/tpm/backend/encryption[@secret]"):
        yield SecretRef(kind="vtpm", uuid=(encryption.get("secret") or "").lower())


def _secret(secret: Element, kind: str, username: str | None) -> SecretRef:
    uuid = secret.get("uuid")
    return SecretRef(kind=kind, uuid=uuid.lower() if uuid else None, usage=secret.get("usage"), username=username)


def _backing_format(disk: Element) -> str | None:
    found = disk.find("backingStore/format")
    return found.get("type") if found is not None else None


def _firmware(domain: Element) -> Iterator[StateFile]:
    """NVRAM, firmware that the guest writes, the state of an emulated TPM (in a folder of libvirt's own unless the
    definition names one), and where libvirt would save the VM."""
    if flash := flash_of(domain):
        yield StateFile(kind="flash", path=flash)
    nvram = domain.find("os/nvram")
    if nvram is not None:
        path = _attr(nvram, "source", "file") or (nvram.text or "").strip()
        if path:
            yield StateFile(kind="nvram", path=path, template=nvram.get("template", ""))
    for backend in domain.iterfind("devices/tpm/backend[@type='emulator']"):
        path = _attr(backend, "source", "path") or f"{TPM_FOLDER}/{domain.findtext('uuid', '')}"
        yield StateFile(kind="tpm", path=path)
    yield StateFile(kind="save", path=f"{SAVE_FOLDER}/{domain.findtext('name', '')}.save")


def _immovable(domain: Element) -> list[str]:
    """Devices and features with state that stays on this host, in words for a refusal."""
    found = [_hostdev(device) for device in domain.iterfind("devices/hostdev")]
    for share in domain.iterfind("devices/filesystem"):
        kind = "virtiofs" if _attr(share, "driver", "type") == "virtiofs" else "9p"
        found.append(f"{kind} share {_attr(share, 'source', 'dir') or _attr(share, 'target', 'dir')}")
    found += [_shared_memory(device) for device in domain.iterfind("devices/shmem")]
    found += [
        f"TPM passed through from {_attr(t, 'backend/device', 'path')}"
        for t in domain.iterfind("devices/tpm")
        if _attr(t, "backend", "type") == "passthrough"
    ]
    found += [
        f"host {c.tag} {_attr(c, 'source', 'path')}"
        for c in domain.iterfind("devices/*[@type='dev']")
        if c.tag in ("serial", "parallel", "console", "channel")
    ]
    found += [
        f"input device of the host {_attr(i, 'source', 'evdev') or _attr(i, 'source', 'dev')}"
        for i in domain.iterfind("devices/input")
        if i.get("type") in ("passthrough", "evdev")
    ]
    found += [
        f"smartcard of the host ({s.get('mode')})"
        for s in domain.iterfind("devices/smartcard")
        if s.get("mode") != "passthrough"
    ]
    found += [
        f"{m.get('model')} memory at {m.findtext('source/path')}"
        for m in domain.iterfind("devices/memory")
        if m.get("model") in ("nvdimm", "virtio-pmem")
    ]
    found += [
        f"NVRAM that is not a file ({n.get('type')})"
        for n in domain.iterfind("os/nvram")
        if n.get("type", "file") != "file"
    ]
    found += [
        f"disk {_attr(d, 'target', 'dev')}: files that a program has opened for it (fdgroup {s.get('fdgroup')})"
        for d in domain.iterfind("devices/disk")
        for s in d.iter("source")
        if s.get("fdgroup")
    ]
    found += [f"encrypted memory ({s.get('type')})" for s in domain.iterfind("launchSecurity")]
    if _has_invtsc(domain) and not _has_tsc_frequency(domain):
        found.append(INVTSC)
    return found


def _has_invtsc(domain: Element) -> bool:
    return any(f.get("policy") == "require" for f in domain.iterfind("cpu/feature[@name='invtsc']"))


def _has_tsc_frequency(domain: Element) -> bool:
    """With it QEMU and libvirt migrate invtsc: the destination's QEMU runs the clock at the same frequency, or does
    not start."""
    return any(t.get("frequency", "0").strip("0") for t in domain.iterfind("clock/timer[@name='tsc']"))


def _shared_memory(device: Element) -> str:
    role = MASTER if device.get("role") == "master" else ""
    return " ".join(filter(None, (SHARED_MEMORY, device.get("name"), role)))


def _hostdev(device: Element) -> str:
    address = device.find("source/address")
    if device.get("type") == "pci" and address is not None:
        standby = WITH_STANDBY if _attr(device, "teaming", "type") == "transient" else ""
        return f"hostdev {pci_address(address)} {standby}".rstrip()
    where = address.get("uuid") if address is not None and address.get("uuid") else ""
    vendor, product = _attr(device, "source/vendor", "id"), _attr(device, "source/product", "id")
    where = where or ":".join(filter(None, (vendor, product)))
    return f"hostdev {device.get('type') or device.get('mode') or ''} {where}".rstrip()


def _attr(element: Element, child: str, name: str) -> str:
    """`element/child@name`, or ''."""
    found = element.find(child)
    return (found.get(name) or "") if found is not None else ""
