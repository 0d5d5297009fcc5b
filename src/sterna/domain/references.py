"""What a VM's definition names on its host besides disks and NICs, and whether another host can give it. Pure.

The source reads the references from its libvirt's XML (`adapters/libvirt/xml/references.py`). The destination
judges each (`resource_checks.py`) against its own `HostResources` (`adapters/libvirt/resources.py`): in the plan,
when a migration is accepted, and at P6. docs/reference/definitions.md has the table.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

_MOST = 1 << 16
"""No host has as many CPUs or nodes."""
_MOST_NAMED = 4 * _MOST
"""In one text, which may name the same again and again."""


class Kind(StrEnum):
    """Kind of resource that the destination must have."""

    ADDRESS = "address"
    """QEMU listens at this address of the host, and perhaps at a fixed port."""
    PEER = "peer"
    """QEMU connects to this address and port when it starts."""
    SOCKET = "socket"
    """QEMU or libvirt makes this socket."""
    SERVER = "server"
    """QEMU connects to this socket when it starts."""
    OUTPUT = "output"
    """QEMU or libvirt writes this file, and makes it where it is missing."""
    FILE = "file"
    """The guest is given what is in this file."""
    FIRMWARE = "firmware"
    """The content travels with the guest's memory, but the file there must be of the same size."""
    PRESENT = "present"
    """This file must exist; what is in it is the host's own business."""
    DEVICE = "device"
    """This device or pipe of the host must exist."""
    ARGUMENT = "argument"
    """A path in QEMU's own arguments: its purpose is not known."""
    NETWORK = "network"
    """A network of libvirt."""
    FILTER = "filter"
    """A network filter of libvirt."""
    SECRET = "secret"  # noqa: S105 - a word
    """A secret of libvirt for a TPM's state. It is brought (`secrets.py`), and not looked for."""
    CPUS = "cpus"
    """CPUs of the host, as libvirt writes a set of them: `0-3,^2`."""
    NODES = "nodes"
    """NUMA nodes of the host, written in the same way."""
    PAGES = "pages"
    """`count` huge pages of `name` KiB, on the NUMA nodes `nodes` or anywhere."""
    CID = "cid"
    """The number by which vsock knows the guest: each host gives it once."""
    SECURITY = "security"
    """A security driver of libvirt, for a label that is set by hand."""
    CACHE = "cache"
    """Allocation of CPU cache or memory bandwidth (resctrl)."""


PATHS = frozenset(
    {
        Kind.SOCKET,
        Kind.SERVER,
        Kind.OUTPUT,
        Kind.FILE,
        Kind.FIRMWARE,
        Kind.PRESENT,
        Kind.DEVICE,
        Kind.ARGUMENT,
    }
)
"""Names of these kinds are paths. A look at one may get no answer, where its file system is dead."""
ADDRESSES = frozenset({Kind.ADDRESS, Kind.PEER})
"""Names of these kinds may have to be resolved."""


class Form(StrEnum):
    """Kind of file at a path."""

    FILE = "file"
    FOLDER = "folder"
    DEVICE = "device"
    BLOCK = "block device"
    SOCKET = "socket"
    PIPE = "pipe"
    NOTHING = "nothing"


class Thing(BaseModel):
    """A path on one host, as that host sees it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    form: Form = Form.NOTHING
    folder: bool = True
    """The folder of the path exists."""
    size: int | None = None
    digest: str | None = None
    """SHA-256 of a file's content; None if it is too large to be read each time."""
    inode: int | None = None
    modified_ns: int | None = None


FUNCTIONS = "hostdev"
"""The forward mode of a network that gives each NIC a virtual function."""


class Lan(BaseModel):
    """A libvirt network, as configured on one host."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    forward: str = ""
    """`bridge`, `nat`, `route`, ...; empty for an isolated network."""
    port: str = ""
    """Type of its virtual port: `openvswitch`."""
    vlan: str = ""
    """Tags of its VLANs, as text: `10`, `trunk 7,8`, `trunk 10 untagged`."""

    def __str__(self) -> str:
        kind = f"forward mode {self.forward}" if self.forward else "isolated"
        more = [self.port] if self.port else []
        return ", ".join([kind, *more, *([f"VLAN {self.vlan}"] if self.vlan else [])])


class Reference(BaseModel):
    """One resource of the host in a VM's definition."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Kind
    name: str
    """Address, path, name, set or size."""
    where: str
    """The part of the definition that refers to it: `VNC`, `serial 0`."""
    port: int | None = None
    udp: bool = False
    count: int = 0
    nodes: str = ""
    promised: int = 0
    """How many more are reserved for other guests that are migrating to the destination."""
    cold: bool = False
    """Only in the persistent definition: the next cold start needs it, the migration does not."""
    thing: Thing | None = None
    """For a path: the file on the source."""
    written: bool = False
    """For a path in arguments passed to QEMU: the running QEMU reads and writes that file."""
    shared: bool = False
    """For such a file: the destination is proven to see the same one."""
    silent: bool = False
    """For a path: its file system on the source does not answer."""
    unless: str = ""
    """Not needed if this path exists."""
    own: bool = False
    """For an address: it is the `address` in the source agent's settings."""
    portgroup: str = ""
    """For the network of a NIC: its portgroup."""
    lan: Lan | None = None
    """For the network of a NIC: its configuration on the source."""
    network: str = ""
    """For an address: its network on the source, `10.73.0.0/24`."""


class HostResources(Protocol):
    """What a host has. Every method is a look that changes nothing."""

    name: str
    """The host's name, for messages."""
    address: str
    """Its own address in the agent's settings."""

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        """What a path leads to here; with `digest`, what is in the file."""

    def makes(self, folder: str) -> bool:
        """Is that the VM's own folder, which P8 makes on this host?"""

    def bindable(self, address: str, port: int = 0, *, udp: bool = False) -> str:
        """`` if a program could listen there, `address` if this host does not have the address, `port` if another
        program has the port."""

    def addresses_in(self, network: str) -> tuple[str, ...]:
        """This host's addresses in that network."""

    def reaches(self, address: str, port: int) -> bool:
        """Does a program accept connections there?"""

    def listening(self, path: str) -> bool:
        """Does a program accept connections at this socket?"""

    def user_of(self, path: str) -> str:
        """In words, a running VM of this host that names the path; `` for none."""

    def network(self, name: str) -> str:
        """`active`, `inactive`, or `` where libvirt has no such network."""

    def lan(self, name: str, portgroup: str) -> Lan | None:
        """Where that network leads; None where libvirt has no such network."""

    def has_filter(self, name: str) -> bool:
        """Does libvirt know this network filter?"""

    def cpus(self) -> frozenset[int]:
        """CPUs that are online."""

    def nodes(self) -> frozenset[int]:
        """NUMA nodes that are online."""

    def free_pages(self, size_kib: int, nodes: frozenset[int]) -> int | None:
        """Huge pages of that size which are neither used nor promised, on these nodes or (empty) anywhere. None
        where libvirt could not use any."""

    def cid_user(self, cid: str) -> str:
        """In words, the running VM of this host with that vsock address; `` for none."""

    def security_models(self) -> frozenset[str]:
        """libvirt's security drivers."""

    def allocates_cache(self) -> bool:
        """Is resctrl mounted?"""


def numbers(text: str) -> frozenset[int]:
    """libvirt's notation of a set: `0-3,^2,7`. Raises ValueError."""
    found, named = set[int](), 0
    for part in text.replace(" ", "").split(","):
        first, _, last = part.removeprefix("^").partition("-")
        if not 0 <= int(first) <= int(last or first) < _MOST:
            raise ValueError(f"not a set of CPUs or nodes: {text!r}")
        span = range(int(first), int(last or first) + 1)
        named += len(span)
        if named > _MOST_NAMED:
            raise ValueError(f"not a set of CPUs or nodes: it names {named} and more")
        (found.difference_update if part.startswith("^") else found.update)(span)
    return frozenset(found)


def in_words(found: Iterable[int]) -> str:
    """The other way round, for messages: `0-3,7`."""
    spans: list[list[int]] = []
    for number in sorted(found):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans) or "none"


def apart(references: Iterable[Reference]) -> list[tuple[Reference, ...]]:
    """Those of one path or address together, and all others, which any host can judge at once."""
    found: dict[str, list[Reference]] = {}
    for ref in references:
        alone = ref.kind in PATHS | ADDRESSES and not ref.silent
        found.setdefault(ref.name if alone else "", []).append(ref)
    return [tuple(together) for together in found.values()]


def translations(references: Iterable[Reference], host: HostResources) -> Mapping[str, str]:
    """Listen addresses that only the source has -> this host's address in their place.

    The source's own address becomes this host's own. Another one becomes this host's address in the same network:
    the same clients reach the guest's console as before, and no others.
    """
    found: dict[str, str] = {}
    for ref in references:
        if ref.kind is not Kind.ADDRESS or ref.name in found or host.bindable(ref.name) != "address":
            continue
        alike = host.addresses_in(ref.network) if ref.network else ()
        if ref.own or host.address in alike:
            found[ref.name] = host.address
        elif len(alike) == 1:
            found[ref.name] = alike[0]
    return found


def less_promised(references: Iterable[Reference], others: Iterable[Iterable[Reference]]) -> tuple[Reference, ...]:
    """The references, huge pages with how many of the same size are promised to others."""
    taken: dict[str, int] = {}
    for ref in (ref for other in others for ref in other):
        if ref.kind is Kind.PAGES and not ref.cold:
            taken[ref.name] = taken.get(ref.name, 0) + ref.count
    return tuple(
        ref.model_copy(update={"promised": taken[ref.name]})
        if ref.kind is Kind.PAGES and ref.name in taken
        else ref
        for ref in references
    )


def huge_bytes(references: Iterable[Reference]) -> int:
    """How much of the guest's memory is in huge pages."""
    return sum(r.count * int(r.name) * 1024 for r in references if r.kind is Kind.PAGES and not r.cold)


def outputs_in(references: Iterable[Reference], folders: Collection[str]) -> tuple[str, ...]:
    """The files in these folders that a VM's output goes to, such as the log of its console."""
    found = (ref.name for ref in references if ref.kind is Kind.OUTPUT)
    return tuple(dict.fromkeys(name for name in found if posixpath.dirname(name) in folders))
