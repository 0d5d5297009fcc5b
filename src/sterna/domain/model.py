"""What Sterna knows about hosts, VMs, disks and NICs, as frozen values that cross the bus and the journal.

Sizes are bytes, rates bytes/s, durations ms or s as the field's name says. Fields that have not been observed are
None, never zero. Fields unknown to this version are ignored on reading (N and N-1 are accepted).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationInfo, field_validator

from sterna.domain.addresses import is_address
from sterna.domain.references import Reference, huge_bytes
from sterna.domain.refusals import Code, remedy
from sterna.domain.texts import ISCSI_NAME, is_plain

Data = dict[str, Any]
"""Plain JSON: what steps put into the journal."""


class Value(BaseModel):
    """A frozen value with a plain-JSON form."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def omitted(default: Any) -> Any:
    """A field that is left out of the JSON while it has its default."""
    return Field(default, exclude_if=lambda value: bool(value == default))


class Refusal(Value):
    """One reason why a migration is refused, and how to fix it (invariant 4 of the protocol)."""

    code: Annotated[Code, GetPydanticSchema(lambda _code, schema_of: schema_of(str))]
    """Stable: scripts can rely on it. docs/reference/refusals.md lists all. A newer version may send others."""
    message: str
    fix: Annotated[str, Field(validate_default=True)] = ""
    """What to do. If none is given: the remedy in the catalogue (`domain/refusals`)."""

    @field_validator("fix")
    @classmethod
    def _or_remedy(cls, fix: str, info: ValidationInfo) -> str:
        return fix or remedy(info.data.get("code", ""))


class GuestState(StrEnum):
    """State of a guest in one hypervisor."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    """Defined, no QEMU."""
    ABSENT = "absent"
    """Not even defined."""
    UNKNOWN = "unknown"
    """The hypervisor could not be asked."""


class Observation(Value):
    """One hypervisor's view of one guest at one moment. `ran` is evidence, not opinion."""

    state: GuestState
    reason: str = ""
    """libvirt's reason in words: `migration`, `postcopy`, `user`, `crashed`, `incoming` ..."""
    job_active: bool = False
    """A migration job of this guest is running in this libvirt."""
    epoch: int | None = None
    """Sterna's epoch in the domain's metadata, None where there is none."""
    ran: bool = False
    """This guest's vCPUs have been seen running on this host since the epoch was written."""


class DiskKind(StrEnum):
    """How a disk is accessed."""

    FILE = "file"
    ISCSI = "iscsi"
    RBD = "rbd"
    """A Ceph image, reached by QEMU itself."""
    BLOCK = "block"
    """A device of the host, which attaches it before QEMU opens it (as os-brick does)."""
    EMPTY = "empty"
    """A removable drive without a medium."""
    OTHER = "other"
    """Anything not yet supported; `detail` says what the XML says."""


class Source(Value):
    """Where a volume is."""

    @property
    def names(self) -> object:
        """Identifies its bytes, independent of the way in which they are reached."""
        raise NotImplementedError

    def odd(self) -> Iterator[tuple[str, object]]:
        """The fields of one that came from another host and cannot be true, each with what it says."""
        raise NotImplementedError


class IscsiSource(Source):
    """A LUN that QEMU's own initiator connects to (libvirt network disk)."""

    target: str
    lun: int
    portal_host: str
    portal_port: int = 3260
    initiator: str | None = None

    @property
    def names(self) -> object:
        """The LUN."""
        return self.target, self.lun

    def odd(self) -> Iterator[tuple[str, object]]:
        """Of addresses, numbers and names."""
        if not is_address(self.portal_host.strip("[]")):
            yield "portal_host", self.portal_host
        if not 0 < self.portal_port < 2**16:
            yield "portal_port", self.portal_port
        if not 0 <= self.lun < 2**16:
            yield "lun", self.lun
        if not ISCSI_NAME.fullmatch(self.target):
            yield "target", self.target
        if self.initiator and not ISCSI_NAME.fullmatch(self.initiator):
            yield "initiator", self.initiator


class RbdSource(Source):
    """A Ceph image that QEMU opens itself (a network disk of libvirt). Its <auth> stays; see `Disk.secrets`."""

    name: str
    """`pool/image`."""
    monitors: tuple[str, ...] = ()
    """Each as `host:port`."""

    @property
    def names(self) -> object:
        """The image."""
        return self.name

    def odd(self) -> Iterator[tuple[str, object]]:
        """Of the image and of the monitors."""
        if not is_plain(self.name):
            yield "image", self.name
        yield from (("monitor", monitor) for monitor in self.monitors if not _is_monitor(monitor))


def _is_monitor(text: str) -> bool:
    """`host:port`, one without a name (ceph.conf has it), or a list: `[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]`."""
    inner = text.removeprefix("[").removesuffix("]")
    parts = inner.split(",") if "v1:" in inner or "v2:" in inner else [text]
    return all(_is_socket(re.sub(r"^v[12]:|/[0-9]{1,10}$", "", part)) for part in parts)


def _is_socket(text: str) -> bool:
    begin, colon, number = text.rpartition(":")
    if not colon or not (number.isascii() and number.isdigit()):
        begin, number = text, "0"
    return int(number) < 2**16 and (not begin.strip("[]") or is_address(begin.strip("[]")))


class Reached(Value):
    """How a disk is reached, from one host."""

    kind: DiskKind
    path: str | None = None
    iscsi: IscsiSource | None = None
    rbd: RbdSource | None = None

    @property
    def way(self) -> Data:
        """All that says how it is reached, by field."""
        return {name: getattr(self, name) for name in Reached.model_fields}

    @property
    def sources(self) -> list[Source]:
        """Where its volume is; nothing for a file."""
        return [said for said in self.way.values() if isinstance(said, Source)]

    @property
    def place(self) -> tuple[object, ...]:
        """Identifies its bytes, without the way in which they are reached."""
        return self.kind, self.path, *(source.names for source in self.sources)


class SecretRef(Value):
    """A libvirt secret that a disk's definition refers to, by its UUID, or by type and usage."""

    kind: str
    """libvirt's usage type: `iscsi` (CHAP), `ceph`, `volume` (LUKS)."""
    uuid: str | None = None
    usage: str | None = None
    username: str | None = None
    """In an <auth> element."""

    @property
    def words(self) -> str:
        """How a message calls it."""
        return self.uuid or f"{self.kind} {self.usage}"


class FileOwner(Value):
    """Owner and mode of a file. With names if the host knows them, because numbers may differ between hosts."""

    user: str | None = None
    uid: int
    group: str | None = None
    gid: int
    mode: int
    """Permission bits."""


class Disk(Reached):
    """One disk of a VM ("block device mapping", protocol P2)."""

    target: str
    """Device name in the guest, `vda`. Identifies the disk on both hosts."""
    device: str = "disk"
    """`disk`, `cdrom`, `lun`, `floppy`."""
    format: str = "raw"
    volume_id: str | None = None
    """<serial> in the XML, or None."""
    vm_uuid: str | None = None
    """The VM that owns the disk: the instance of a volume service. None if unknown."""
    attachment_id: str | None = None
    """The volume service's ID of this host's attachment, once it exists (P4)."""
    secrets: tuple[SecretRef, ...] = ()
    """Secrets that QEMU needs for it, its backing files and its mirror; never their values."""
    read_only: bool = False
    shareable: bool = False
    capacity_bytes: int | None = None
    allocation_bytes: int | None = None
    length_bytes: int | None = None
    """Length of its file, including holes."""
    data_bytes: int | None = omitted(None)
    """Data in the copy of a local disk. More than allocated if the file is compressed."""
    holes_kept: bool = False
    """Zeros are detected during the copy, and take no space in the new file."""
    owner: FileOwner | None = None
    """Owner of a local file on its host."""
    backing_path: str | None = None
    backing_format: str | None = None
    backing_shared: bool | None = None
    """The other host also sees the backing file, so that only the image above it is copied. None: not yet known."""
    detail: str = ""
    chain: tuple[str, ...] = ()
    """Its backing files and external data file, nearest first: a path, or another location (`nbd://...`)."""
    data_file: str | None = None
    """The guest's data is in this file and not in the image (qcow2's `data_file`)."""
    mirrored: bool = omitted(False)
    """A block job copies it to another location, which may be another volume (`<mirror>`)."""
    sliced: bool = omitted(False)
    """It is only a part of its file (`<slices>`)."""
    snapshots: int = omitted(0)
    """Number of internal snapshots of the image, including those that libvirt does not know."""
    optional: bool = False
    """A medium that the VM can start without (`startupPolicy`)."""
    against: tuple[Refusal, ...] = ()
    """Reasons why it cannot be migrated, from the comparison of both hosts' storage."""
    identity: str | None = None
    """Distinguishes its file on the source from a later file with the same name."""
    local: bool | None = None
    """True: only its host sees it, so it is copied with the memory (M2). None: not yet known."""

    @property
    def encrypted(self) -> bool:
        """QEMU itself decrypts it, or one of its backing files (LUKS)."""
        return any(ref.kind == "volume" for ref in self.secrets)

    @property
    def medium(self) -> bool:
        """Never written to: a CD, a seed or config drive, any disk that is read-only."""
        return self.kind is DiskKind.FILE and (self.read_only or self.device == "cdrom")

    @property
    def carried(self) -> bool:
        """Sent by the agents themselves: libvirt copies nothing that is read-only."""
        return bool(self.local) and self.medium

    @property
    def chap(self) -> SecretRef | None:
        """The login its iSCSI target wants (a backing file's comes later in the XML)."""
        return next((ref for ref in self.secrets if ref.kind == "iscsi"), None)

    @property
    def files(self) -> tuple[str, ...]:
        """Its file and all it stands on: where a token may show whether they are shared."""
        if self.kind is not DiskKind.FILE:
            return ()
        return tuple(dict.fromkeys(p for p in (self.path, self.backing_path, *self.chain) if p and p[0] == "/"))


DEFAULT_PLUG: Final = "ovs"
"""The plug type (`domain/plugs.py`) of what was written down before there were others."""


class Nic(Value):
    """One NIC of a VM, as connected on one host (protocol P5, P10)."""

    mac: str
    plug: str
    """Plug type; for one that Sterna does not support, the type in the XML."""
    port_id: str | None = None
    bridge: str | None = None
    vlan: int | None = None
    mtu: int | None = None
    device: str | None = None
    """Device on the host: `vnet3`, `tap0f2a...`."""
    managed: bool = True
    """False: the tap was created before the guest (`managed='no'`). libvirt does not remove it with the guest."""
    external_ids: dict[str, str] = {}
    """From the switch's Interface row, or from the alias of a tap on a Linux bridge."""
    parent: str | None = None
    """The host's device below a macvtap."""
    mode: str | None = None
    """Mode of a macvtap: `bridge`, `passthrough`, `vepa`, `private`."""
    pci: str | None = None
    """PCI address of the virtual function on the host: `0000:3b:02.4`."""
    physical_network: str | None = None
    """Physical network of the virtual function. The destination needs one on the same network."""
    addresses: tuple[str, ...] = ()
    """IPv4 and IPv6 addresses of the guest on this NIC, if a network service knows them."""


class StateFile(Value):
    """State of a VM's firmware or TPM on its host. It is sent in the memory stream."""

    kind: str
    """`nvram`, `flash` (firmware that the guest writes), `tpm` (a folder, or a file), `save` (the managed save)."""
    path: str
    template: str = omitted("")
    """Of NVRAM: the file that libvirt makes it from."""
    shared: bool = omitted(False)
    """The destination is proven to see the same file. Not decided of a TPM's state."""


class NextStart(Value):
    """What a guest's next start needs and the running guest does not have. The destination must have it."""

    nics: tuple[Nic, ...] = ()
    devices: tuple[str, ...] = ()
    """Devices that cannot be migrated, as text."""
    machine: str = ""
    """Machine type, if different from that of the running guest; otherwise empty."""


class Vm(Value):
    """One VM, as described by its host's libvirt."""

    uuid: str
    name: str
    state: GuestState
    reason: str = ""
    persistent: bool = True
    autostart: bool = False
    memory_bytes: int
    vcpus: int
    virt_type: str = "kvm"
    """`kvm`, or `qemu` for software emulation."""
    arch: str = "x86_64"
    machine: str = ""
    emulator: str = ""
    cpu_xml: str = ""
    """<cpu> element of the live definition. The destination compares it with its CPU."""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    cold: tuple[Disk, ...] = ()
    """Disks that only the persistent definition has: they are not copied, and a cold start needs them."""
    next_start: NextStart = omitted(NextStart())
    """The same for everything else that is not in `references`."""
    firmware: tuple[StateFile, ...] = ()
    """NVRAM, TPM state, managed save."""
    immovable: tuple[str, ...] = ()
    """Devices that cannot be migrated, as text: `hostdev 0000:01:00.0`, `virtiofs share /x`."""
    references: tuple[Reference, ...] = ()
    """Other resources of its host in its definition."""
    unjudged: tuple[str, ...] = ()
    """Resources in its definition that cannot be checked on another host, as text."""
    hugepages: bool = False
    """Its memory is in huge pages."""
    nvdimm: bool = False
    epoch: int = 0
    image: Data = {}
    """Image metadata from the domain's own metadata element (protocol P7)."""

    @property
    def written(self) -> tuple[str, ...]:
        """Files that its QEMU writes because of arguments of its own: disks in all but name."""
        return tuple(dict.fromkeys(ref.name for ref in self.references if ref.written))

    @property
    def ordinary_bytes(self) -> int:
        """Its memory without what is in huge pages: what takes from a host's free memory."""
        return max(0, self.memory_bytes - huge_bytes(self.references))
