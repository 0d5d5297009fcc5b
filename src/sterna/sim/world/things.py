"""What a simulated world is made of: files, switch ports, domains, guests. Data only.

Only `world.py` changes these, and it notifies the watchers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from sterna.domain.copying import CompletedJob, GuestLoad, JobSample
from sterna.domain.model import DEFAULT_PLUG, Data, Disk, GuestState, Nic, Refusal, StateFile
from sterna.domain.secrets import Secret

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass
class SimFile:
    """One file. `content` stands for its bytes: two files with the same token hold the same data."""

    size_bytes: int
    format: str = "raw"
    content: str = ""
    allocated_bytes: int = 0
    data_bytes: int | None = None
    """What a copy of it would hold, where that is not what is allocated: it is compressed."""


@dataclass
class SimFolder:
    """A file system: private to one host, or the same one seen by several. Keyed by absolute path."""

    path: str
    shared: bool = False
    known: bool = True
    """If shared, libvirt takes it for shared."""
    hosts: set[str] = field(default_factory=set)
    files: dict[str, SimFile] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    capacity_bytes: int = 1024 * GIB
    users: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """Path -> (host, UUID) of the QEMUs that hold it open."""
    births: dict[str, int] = field(default_factory=dict)
    """How often a file of this path was made: a later one is another file."""
    read_only: bool = False
    """Mounted so."""
    mount: str = ""
    """Where it comes from, if that is another machine: `nfs4 nas:/images`."""
    exported: bool = False
    """A file server of its host gives it to other hosts."""
    locks: dict[int, str] = field(default_factory=dict)
    """Place -> path of the locks that prove sharing."""

    @property
    def free_bytes(self) -> int:
        """What is left for new data."""
        return self.capacity_bytes - sum(f.allocated_bytes for f in self.files.values())


TAP_BEHIND = "behind"
"""`SimPort.plug` of a tap on the bridge that a hybrid plug puts between it and the switch."""


@dataclass
class SimPort:
    """A port of one of the host's switches or bridges. It forwards only while its tap exists."""

    device: str
    bridge: str
    tag: int | None = None
    mtu: int | None = None
    external_ids: dict[str, str] = field(default_factory=dict)
    plug: str = DEFAULT_PLUG
    """How it is plugged: a port of Open vSwitch (of a hybrid plug: the veth's end), a tap on a Linux bridge, or a
    device on a parent (then `bridge` is that parent)."""
    mac: str = ""
    """Of the guest's NIC behind it, as the device itself shows it."""
    mode: str | None = None
    """Of a macvtap."""

    @property
    def guest_mac(self) -> str:
        """Lower case; of the guest's NIC behind it."""
        return (self.mac or self.external_ids.get("attached-mac", "")).lower()


class Phase(IntEnum):
    """How far a copy is; see the table in `libvirt/copying.py`."""

    PREPARING = 0
    COPYING = 1
    SWITCHING = 2
    FINISHED = 3
    CONFIRMING = 4
    POSTCOPY = 5
    OVER = 6


class Job(Protocol):
    """libvirt's migration of a domain, as far as the rest of the world has to do with it."""

    phase: Phase
    iteration: int
    max_downtime_ms: float
    throttle: int

    @property
    def sender(self) -> str:
        """The host that sends it."""

    @property
    def given_up(self) -> bool:
        """Has the source's QEMU given a post-copy up?"""

    @property
    def waits_for_nobody(self) -> bool:
        """Has the destination's QEMU shown that it waits for memory which nobody sends any more?"""

    def sample(self) -> JobSample:
        """Its statistics."""

    def abort(self) -> None:
        """`virsh domjobabort`."""

    def set_bandwidth(self, bytes_s: int | None) -> None:
        """`virsh migrate-setspeed`."""

    def set_max_downtime(self, ms: int) -> None:
        """`virsh migrate-setmaxdowntime`."""

    def switch(self) -> None:
        """`virsh migrate-postcopy`. Raises LibvirtSays."""

    def listen(self) -> None:
        """The destination's half waits for the source's. Raises LibvirtSays."""

    def join(self) -> None:
        """The source's half joins it. Raises LibvirtSays."""

    def give_up(self) -> None:
        """The source's half gives a post-copy up, and its QEMU lets the old copy run."""

    def link_changed(self) -> None:
        """A path between two hosts was cut."""

    def libvirtd_lost(self, host: str) -> None:
        """The libvirtd of a host went down."""

    def qemu_gone(self, host: str) -> None:
        """The guest's QEMU on a host is gone, whoever ended it."""


@dataclass
class SimSecret:
    """One secret. `value` None: it has none yet."""

    about: Secret
    value: bytes | None = field(default=None, repr=False)

    @property
    def described(self) -> Secret:
        """As libvirt tells of it."""
        return self.about.model_copy(update={"has_value": None if self.about.private else self.value is not None})


@dataclass(frozen=True)
class Definition:
    """A domain's XML, as far as the simulation needs one."""

    name: str
    memory_bytes: int
    vcpus: int = 1
    virt_type: str = "kvm"
    arch: str = "x86_64"
    machine: str = "pc-q35-10.0"
    emulator: str = "/usr/bin/qemu-system-x86_64"
    cpu_xml: str = ""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    immovable: tuple[str, ...] = ()
    firmware: tuple[StateFile, ...] = ()
    files: tuple[str, ...] = ()
    """What else it names: a kernel, a log, another guest's disk."""
    image: Data = field(default_factory=dict)
    epoch: int | None = None


@dataclass
class SimDomain:
    """One domain in one host's libvirt. `live` is there while it has a QEMU, `inactive` while it is persistent."""

    uuid: str
    live: Definition | None = None
    inactive: Definition | None = None
    state: GuestState = GuestState.SHUTOFF
    reason: str = ""
    autostart: bool = False
    exports: tuple[str, ...] = ()
    """Of its QEMU's NBD server."""
    ran: bool = False
    """Its vCPUs have run on this host since the epoch was written."""
    job: Job | None = None
    completed: CompletedJob | None = None
    load: GuestLoad | None = None
    """What was measured last."""
    interlocked: bool = False
    """This QEMU, once its guest's state has left, cannot let it run again."""
    held: bool = False
    """Somebody holds this QEMU's second monitor."""
    against: tuple[Refusal, ...] = ()
    """Jobs of somebody else's, and what its QEMU cannot migrate."""
    sent: str = ""
    """The last stream that this QEMU has sent whole."""
    max_downtime_ms: int | None = None
    """As somebody set it on this QEMU; None: the default."""

    @property
    def definition(self) -> Definition:
        """The live definition, else the inactive one."""
        found = self.live or self.inactive
        assert found is not None, "a domain that is neither active nor defined must be forgotten"
        return found

    @property
    def active(self) -> bool:
        """It has a QEMU."""
        return self.live is not None

    @property
    def running(self) -> bool:
        """Its vCPUs run now."""
        return self.active and self.state is GuestState.RUNNING

    @property
    def incoming(self) -> bool:
        """It waits for its memory and never ran here."""
        return self.active and self.reason == INCOMING


INCOMING = "incoming"
"""`Observation.reason` of a guest that waits for its memory."""


@dataclass
class SimGuest:
    """The virtual machine itself, wherever its vCPUs are: what it dirties and what it has written."""

    uuid: str
    dirty_bytes_per_s: int = 0
    working_set_bytes: int = 64 * MIB
    written: dict[str, str] = field(default_factory=dict)
    """Disk target -> the content it must find when it runs."""
    writes: int = 0


@dataclass
class Pace:
    """How long things take, and how libvirt behaves where it has a choice. ms and bytes/s."""

    prepare_ms: float = 300.0
    """From the request to the incoming QEMU."""
    bandwidth_bytes: int = GIB
    max_downtime_ms: float = 300.0
    """Switch over once the rest can be sent within this (libvirt's default)."""
    switch_ms: float = 40.0
    """From the source's pause to the destination's first instruction, besides the last pages."""
    finish_ms: float = 10.0
    """The destination's answer travels back: the window in which libvirt can lose track of the outcome."""
    confirm_ms: float = 1300.0
    """From that answer to the end of the source's QEMU; measured at 1.2-1.6 s."""
    call_ms: float = 0.0
    """Every call to a libvirtd, switch or storage."""
    resume_on_lost_finish: bool = True
    """What the source's libvirt tries when the destination's answer is lost. False: leaves its guest paused.
    True: lets it run again, which without the interlock makes two copies where the destination's runs too;
    libvirt's own comment says so ("the lock manager plugins should take care of safety in this scenario")."""


@dataclass(frozen=True)
class Change:
    """One change of the world, of which watchers are notified the moment it has happened."""

    at_ms: float
    host: str
    what: str
    """`domain`, `job`, `port`, `tap`, `file`, `directory`, `admission`, `session`, `device`, `binding`, `secret`,
    `libvirtd`, `link`."""
    subject: str
    """A domain's UUID, a device, a path, ..."""
    detail: str = ""


@dataclass(frozen=True)
class Violation:
    """Something that must never happen, and did."""

    at_ms: float
    host: str
    uuid: str
    text: str
