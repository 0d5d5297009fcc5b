"""The fleet of a run, from a seed: sizes, rules and dirty rates as in `bench/fleet/world.py`, which names sources.

Time is compressed by the memory: with `compress` 20, each host and each VM has a twentieth of it. Rates of links
and guests stay as they are, so each copy takes a twentieth of its time, and who plans with these sizes plans right.
What does not depend on the memory (preparing, asking, a controller's patience) takes its usual time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.fleet import world

KIB = 1 << 10
GBIT_S = 125_000_000


@dataclass(frozen=True)
class Size:
    """What to make."""

    hosts: int = 100
    vms: int = 1000
    used: float = 0.75
    """Of the memory."""
    compress: float = 20.0
    link_gbit_s: float = 25.0
    generations: int = 1
    """2: half of the hosts have a newer CPU, and VMs that were started there need it."""


@dataclass(frozen=True)
class MadeHost:
    """A host as it is built."""

    name: str
    memory_bytes: int
    cpus: int
    rack: str
    link_bytes_s: float
    newer: bool = False


@dataclass(frozen=True)
class MadeVm:
    """A VM as it is when the run begins."""

    uuid: str
    name: str
    host: str
    memory_bytes: int
    vcpus: int
    dirty_bytes_s: float
    newer: bool = False
    """It needs the newer CPU."""
    stubborn: bool = False
    """Throttling does not slow down what it writes."""


@dataclass(frozen=True)
class Made:
    """The fleet when the run begins."""

    size: Size
    hosts: dict[str, MadeHost]
    vms: dict[str, MadeVm]
    """By UUID."""
    apart: dict[str, frozenset[str]] = field(default_factory=dict)
    """Anti-affinity on hosts: name of the rule -> UUIDs."""

    def racks(self) -> dict[str, list[str]]:
        """Rack -> its hosts."""
        found: dict[str, list[str]] = {}
        for host in self.hosts.values():
            found.setdefault(host.rack, []).append(host.name)
        return found


def make(size: Size, seed: int) -> Made:
    """The same for the same seed."""
    snapshot = world.make(world.Fleet(hosts=size.hosts, vms=size.vms, used=size.used), seed)
    number = {vm.uuid: n for n, vm in enumerate(snapshot.vms, start=1)}
    uuids = {name: f"aaaaaaaa-0000-4000-8000-{n:012d}" for name, n in number.items()}
    in_rack, two = rack_of(size.hosts), size.generations > 1
    hosts = {
        host.name: MadeHost(
            name=host.name,
            memory_bytes=compressed(host.memory_bytes, size.compress),
            cpus=host.cpus,
            rack=f"rack{n // in_rack:03}",
            link_bytes_s=size.link_gbit_s * GBIT_S,
            newer=two and host.cpu == world.NEW,
        )
        for n, host in enumerate(snapshot.hosts)
    }
    vms = {
        uuids[vm.uuid]: MadeVm(
            uuid=uuids[vm.uuid],
            name=vm.name,
            host=vm.host,
            memory_bytes=compressed(vm.memory_bytes, size.compress),
            vcpus=vm.vcpus,
            dirty_bytes_s=float(vm.dirty_bytes_s or 0),
            newer=two and vm.cpu == world.NEW,
        )
        for vm in snapshot.vms
    }
    groups = {rule.name: frozenset(uuids[vm] for vm in rule.vms if vm in uuids) for rule in snapshot.rules.apart}
    return Made(size, hosts, vms, {name: group for name, group in groups.items() if len(group) > 1})


def compressed(size: int, factor: float) -> int:
    """Bytes, in whole KiB, as libvirt counts."""
    return int(size / factor) // KIB * KIB


def rack_of(hosts: int) -> int:
    """Hosts of one rack: 16, in small fleets a fourth of all."""
    return max(2, min(world.RACK, hosts // 4))
