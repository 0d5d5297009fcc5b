"""One simulated host: its libvirt, its switch, its file systems. Questions only; `world.py` changes it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Protocol

from sterna.domain.errors import Unreachable
from sterna.domain.hosts import Abilities
from sterna.domain.plugs import Joins, plug_type
from sterna.sim.world.things import GIB, SimDomain, SimFile, SimFolder, SimPort, SimSecret


class Libvirtds(Protocol):
    """Called when a libvirtd goes down or comes up."""

    def libvirtd_stopped(self, host: SimHost) -> None:
        """It is down."""

    def libvirtd_started(self, host: SimHost) -> None:
        """It is up again."""


class SimHost:
    """A host of the world. Set `libvirtd_up` to take its libvirtd down and up; its guests run on."""

    def __init__(self, world: Libvirtds, name: str, *, address: str, memory_bytes: int, cpus: int) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.memory_bytes = memory_bytes
        self.cpus = cpus
        self.host_uuid = ""
        self.initiator = f"iqn.2026-11.org.sterna:{name}"
        self.instances_dir = "/var/lib/sterna/instances"
        self.qemu_version = 10_000_002
        self.libvirt_version = 11_003_000
        self.virt_types = {"kvm", "qemu"}
        self.machines = {"pc-q35-10.0", "pc-i440fx-10.0"}
        self.emulators = {"/usr/bin/qemu-system-x86_64"}
        self.refused_cpus: set[str] = set()
        self.maintenance = False
        self.userfaultfd = True
        """May QEMU handle page faults here?"""
        self.cpu = "Skylake"
        self.cpu_features: tuple[str, ...] = ("aes", "avx", "sse2")
        self.abilities = Abilities(
            userfaultfd_hugepages=True, tls=False, zstd=True, locked_memory=True, insecure=True
        )
        """What else it can do for a copy; `userfaultfd` stands over it."""
        self.authority = "the operators"
        """Who has signed its certificates."""
        self.hears_of_lost_halves = True
        """Does its libvirt hear that QEMU has given up a stream whose other half is gone? Not always: seen."""
        self.untranslatable: set[str] = set()
        """What its libvirt refuses in a definition."""
        self.secrets: dict[str, SimSecret] = {}
        """What its libvirt keeps, by UUID."""
        self.recovery_monitors: set[str] = set()
        """UUIDs of the guests that came in with a second monitor, as far as its socket is still there."""
        self.powered = self.switch_forwards = self._libvirtd_up = True
        self.domains: dict[str, SimDomain] = {}
        self.devices: dict[str, str] = {}
        """Path -> iSCSI target, of the volumes this host has attached by itself."""
        self.denied: set[str] = set()
        """Paths that may not be opened here."""
        self.silent: set[str] = set()
        """Mount points whose file system does not answer here."""
        self.root = SimFolder("/", hosts={name}, capacity_bytes=1024 * GIB)
        self.folders: list[SimFolder] = [self.root]
        self._wire()

    def _wire(self) -> None:
        """Its switch, bridges and devices, without a guest."""
        self.bridges: dict[str, int] = {}
        """Open vSwitch's, and their MTU."""
        self.linux_bridges: set[str] = {"br-lan"}
        self.parents: set[str] = {"phys0", "phys1"}
        """Devices of its own on which a macvtap can hang."""
        self.functions: dict[str, str] = {f"0000:3b:02.{n}": "physnet1" for n in range(2)}
        """PCI address -> physical network, of its virtual functions."""
        self.links: set[str] = set()
        """What hybrid plugs put between a tap and the switch: bridges and veths."""
        self.ports: dict[str, SimPort] = {}
        self.taps: set[str] = set()
        self._next_vnet = 0

    @property
    def uri(self) -> str:
        """libvirt URI that other hosts dial."""
        return f"qemu+tls://{self.address}/system"

    @property
    def libvirtd_up(self) -> bool:
        """Does libvirtd answer?"""
        return self._libvirtd_up

    @libvirtd_up.setter
    def libvirtd_up(self, up: bool) -> None:
        if up == self._libvirtd_up:
            return
        self._libvirtd_up = up
        if up:
            self.world.libvirtd_started(self)
        else:
            self.world.libvirtd_stopped(self)

    @property
    def memory_free_bytes(self) -> int:
        """Memory no QEMU holds."""
        return self.memory_bytes - sum(d.live.memory_bytes for d in self.domains.values() if d.live)

    def require_libvirtd(self) -> None:
        """Raise Unreachable while libvirtd is down."""
        if not self._libvirtd_up:
            raise Unreachable(
                f"{self.name}: Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory",
                fix=f"start libvirtd on {self.name}",
            )

    def takes_for_shared(self, path: str) -> bool:
        """Does this host's libvirt leave a file there where it is?"""
        folder = self.folder(path)
        return folder.shared and folder.known

    def folder(self, path: str) -> SimFolder:
        """The file system that holds `path` on this host."""
        inside = (f for f in self.folders if f.path in ("/", path) or path.startswith(f.path + "/"))
        return max(inside, key=lambda f: len(f.path))

    def file(self, path: str) -> SimFile | None:
        """The file, if this host sees one."""
        return self.folder(path).files.get(path)

    def directory_exists(self, path: str) -> bool:
        """Does this host see the directory?"""
        return path == "/" or any(f.path == path for f in self.folders) or path in self.folder(path).directories

    def parent_exists(self, path: str) -> bool:
        """Does this host see the directory that would hold `path`?"""
        return self.directory_exists(posixpath.dirname(path))

    def files(self) -> Iterator[tuple[str, SimFile]]:
        """Every file this host sees."""
        for folder in self.folders:
            yield from folder.files.items()

    def free_vnet(self) -> str:
        """The next name libvirt gives a tap it makes itself."""
        name = f"vnet{self._next_vnet}"
        self._next_vnet += 1
        return name

    def guests_functions(self) -> set[str]:
        """PCI addresses of the virtual functions that guests have."""
        return {n.pci for d in self.domains.values() if d.live for n in d.live.nics if n.pci}

    def free_macvtap(self) -> str:
        """The lowest name of a macvtap that is not taken, as libvirt chooses it."""
        return next(name for n in range(1000) if (name := f"macvtap{n}") not in self.taps)

    def on_parent(self, parent: str) -> list[SimPort]:
        """The macvtaps that hang on a device."""
        return [p for p in self.ports.values() if plug_type(p.plug).joins is Joins.PARENT and p.bridge == parent]

    def users_of(self, device: str) -> list[SimDomain]:
        """Active domains whose NIC is that device."""
        return [d for d in self.domains.values() if d.live and any(n.device == device for n in d.live.nics)]
