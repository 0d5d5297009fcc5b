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
    """One reason why a migration cannot be, and what would fix it (invariant 4 of the protocol)."""

    code: Annotated[Code, GetPydanticSchema(lambda _code, schema_of: schema_of(str))]
    """Stable, for scripts: docs/reference/refusals.md lists all. A host of a newer version may send another one."""
    message: str
    fix: Annotated[str, Field(validate_default=True)] = ""
    """What to do. Where none is given, the remedy that the catalogue has for the code (`domain/refusals`)."""

    @field_validator("fix")
    @classmethod
    def _or_remedy(cls, fix: str, info: ValidationInfo) -> str:
        return fix or remedy(info.data.get("code", ""))


class GuestState(StrEnum):
    """A guest as one hypervisor sees it."""

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
    """How a disk's bytes are reached."""

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
    """A LUN reached by QEMU's own initiator (libvirt network disk)."""

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
    """A Ceph image reached by QEMU itself (libvirt network disk). Who may open it is the <auth> of the disk, which
    stays as it is: the secret it names is in `Disk.secrets`."""

    name: str
    """`pool/image`."""
    monitors: tuple[str, ...] = ()
    """`host:port` each."""

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
    """`host:port`, as libvirt has it, one without a name (libvirt then asks ceph.conf), or Ceph's own list of a
    monitor's addresses: `[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]`."""
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
    """A secret of libvirt that a disk's definition refers to: by its UUID, or by type and usage."""

    kind: str
    """libvirt's usage type: `iscsi` (CHAP), `ceph`, `volume` (LUKS)."""
    uuid: str | None = None
    usage: str | None = None
    username: str | None = None
    """Of an <auth>."""

    @property
    def words(self) -> str:
        """How a message calls it."""
        return self.uuid or f"{self.kind} {self.usage}"


class FileOwner(Value):
    """Who may open a file. By name where its host knows one: the same user may have another number elsewhere."""

    user: str | None = None
    uid: int
    group: str | None = None
    gid: int
    mode: int
    """Permission bits."""


class Disk(Reached):
    """One disk of a VM: a "block device mapping" (protocol P2)."""

    target: str
    """Guest device name in the XML, `vda`; the key by which disks are matched."""
    device: str = "disk"
    """`disk`, `cdrom`, `lun`, `floppy`."""
    format: str = "raw"
    volume_id: str | None = None
    """The XML's <serial>, else None."""
    vm_uuid: str | None = None
    """Whose disk it is: what a volume service calls the instance. None where that is not known."""
    attachment_id: str | None = None
    """The volume service's own id of this host's admission, once it made one (P4)."""
    secrets: tuple[SecretRef, ...] = ()
    """What its QEMU opens it with, its backing files and mirror included; never a value."""
    read_only: bool = False
    shareable: bool = False
    capacity_bytes: int | None = None
    allocation_bytes: int | None = None
    length_bytes: int | None = None
    """Of its file, holes included."""
    data_bytes: int | None = omitted(None)
    """Of a local disk: what its copy will hold, which is more than is allocated where it is compressed."""
    holes_kept: bool = False
    """Zeros are looked for when it is copied, and take no room in the new file."""
    owner: FileOwner | None = None
    """Of a local file, on its own host."""
    backing_path: str | None = None
    backing_format: str | None = None
    backing_shared: bool | None = None
    """The other host sees the backing file, too: only what differs from it is copied. None: not yet decided."""
    detail: str = ""
    chain: tuple[str, ...] = ()
    """All it stands on, nearest first: backing files and external data; a path, or another place (`nbd://...`)."""
    data_file: str | None = None
    """The guest's data is in this file and not in the image (qcow2's `data_file`)."""
    mirrored: bool = omitted(False)
    """A block job copies it to another place, which may be a volume of its own (`<mirror>`)."""
    sliced: bool = omitted(False)
    """It is a part of its file (`<slices>`), which begins at an offset."""
    snapshots: int = omitted(0)
    """Internal snapshots of the image, those included that libvirt does not know."""
    optional: bool = False
    """A medium without which the VM starts as well (`startupPolicy`)."""
    against: tuple[Refusal, ...] = ()
    """Reasons against moving it, from the comparison of both hosts' storage."""
    identity: str | None = None
    """Distinguishes its file on the source from a later one of the same name."""
    local: bool | None = None
    """True: on storage only its host can see, so it is copied with the memory (M2). None: not yet decided."""

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
    """One NIC of a VM, as plugged on one host (protocol P5, P10)."""

    mac: str
    plug: str
    """One of `domain/plugs.py`, else the XML's own word for what Sterna does not support."""
    port_id: str | None = None
    bridge: str | None = None
    vlan: int | None = None
    mtu: int | None = None
    device: str | None = None
    """The host's device: `vnet3`, `tap0f2a...`."""
    managed: bool = True
    """False: the tap was made ahead of the guest. One that a running guest has (`managed='no'`, as earlier versions
    wrote it) outlives it; its maker removes it."""
    external_ids: dict[str, str] = {}
    """As in the switch's Interface row; of a tap on a Linux bridge, as in its alias."""
    parent: str | None = None
    """The host's own device that a macvtap hangs on."""
    mode: str | None = None
    """Of a macvtap: `bridge`, `passthrough`, `vepa`, `private`."""
    pci: str | None = None
    """The host's virtual function that the guest has: `0000:3b:02.4`."""
    physical_network: str | None = None
    """Of the virtual function: another host's takes its place only if it is on the same."""
    addresses: tuple[str, ...] = ()
    """The guest's on this NIC, IPv4 and IPv6, where a network service knows them."""


class StateFile(Value):
    """What a VM's firmware or TPM keeps on its host besides the disks: it travels in the memory stream."""

    kind: str
    """`nvram` (a file), `tpm` (a folder, or a file), `save` (the managed save, if there is one)."""
    path: str


class NextStart(Value):
    """What a running guest's next start needs beyond the guest itself: its persistent definition was changed while
    it ran. It does not travel, and the destination must have it."""

    nics: tuple[Nic, ...] = ()
    devices: tuple[str, ...] = ()
    """Devices that no other host can be given, in words."""
    machine: str = ""
    """Another machine type than the guest's; '' for the same."""


class Vm(Value):
    """One VM as its host's libvirt describes it: the truth Sterna works from."""

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
    """The live definition's <cpu> element, for the destination's own comparison."""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    cold: tuple[Disk, ...] = ()
    """Disks that only the persistent definition names: they do not travel, and a cold start needs them."""
    next_start: NextStart = omitted(NextStart())
    """The same of everything else that is not among `references`."""
    firmware: tuple[StateFile, ...] = ()
    """NVRAM, TPM state, managed save."""
    immovable: tuple[str, ...] = ()
    """Devices that cannot move, in words: `hostdev 0000:01:00.0`, `virtiofs share /x`."""
    references: tuple[Reference, ...] = ()
    """What else its definition names on its host."""
    unjudged: tuple[str, ...] = ()
    """What its definition names that cannot be looked for on another host, in words."""
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
