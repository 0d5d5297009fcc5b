"""A VM while it is being drawn: the parts of its definition, and what its hosts need beside it. Pure."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field

from sterna.lab.places import INSTANCES, SHARED, STATE

DISK_MIB = 4


@dataclass(frozen=True)
class Vm:
    """One VM: everything that a host needs to have it."""

    number: int
    name: str
    uuid: str
    xml: str
    here: tuple[str, ...]
    """Shell commands on host1 before it is defined."""
    there: tuple[str, ...]
    """Shell commands on host2 before it is planned."""
    started: tuple[str, ...]
    """Shell commands on host1 once it runs."""
    clean: tuple[str, ...]
    """Shell commands on both hosts at the end."""
    traits: tuple[str, ...]
    """What is not ordinary about it, by name."""

    @property
    def folder(self) -> str:
        """Its instance folder, on each host."""
        return f"{INSTANCES}/{self.uuid}"


@dataclass
class Draft:
    """What the traits write into."""

    seed: int
    number: int
    rng: random.Random
    machine: str = "q35"
    loader: str = ""
    devices: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    os: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=lambda: ["<acpi/>"])
    tail: list[str] = field(default_factory=list)
    cpu: str = ""
    vcpu: str = "<vcpu>1</vcpu>"
    memory: str = "<memory unit='MiB'>32</memory>"
    memory_backing: list[str] = field(default_factory=list)
    clock: str = ""
    here: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    clean: list[str] = field(default_factory=list)
    traits: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """What tells apart VMs of the same traits."""
    used: dict[str, int] = field(default_factory=dict)
    """How many targets of a bus, or numbers of another kind, are taken."""

    @property
    def name(self) -> str:
        """Of the VM."""
        return f"random-{self.seed}-{self.number}"

    @property
    def uuid(self) -> str:
        """Of the VM, a function of the seed."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))

    @property
    def folder(self) -> str:
        """Its instance folder."""
        return f"{INSTANCES}/{self.uuid}"

    @property
    def beside(self) -> str:
        """A folder of the host for what is neither a disk nor shared."""
        return f"{STATE}/{self.name}"

    @property
    def shared(self) -> str:
        """The beginning of its names in the folder both hosts see."""
        return f"{SHARED}/{self.name}"

    def next(self, kind: str) -> int:
        """The next number of a kind: 0, 1, ..."""
        number = self.used.get(kind, 0)
        self.used[kind] = number + 1
        return number

    def finished(self) -> Vm:
        """The VM."""
        backing = f"<memoryBacking>{''.join(self.memory_backing)}</memoryBacking>" if self.memory_backing else ""
        xml = (
            f"<domain type='KIND' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{self.name}</name>"
            f"<uuid>{self.uuid}</uuid>{''.join(self.head)}{self.memory}{backing}{self.vcpu}"
            f"<os><type arch='x86_64' machine='{self.machine}'>hvm</type>{self.loader}{''.join(self.os)}</os>"
            f"<features>{''.join(self.features)}</features>{self.cpu}{self.clock}"
            f"<devices>{''.join(self.devices)}</devices>{''.join(self.tail)}</domain>"
        )
        everything = (self.here, self.there, self.started, self.clean)
        here, there, started, clean = (tuple(commands) for commands in everything)
        return Vm(
            self.number, self.name, self.uuid, xml, here, there, started, clean, tuple(dict.fromkeys(self.traits))
        )
