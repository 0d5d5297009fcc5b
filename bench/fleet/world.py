"""A fleet with the sizes of public clouds, made from a seed.

VM sizes: the shares of 24,990 requests in mdl1104/Dataset-for-topology-aware-VM-placement (CC0), derived from
Huawei Cloud, and of the VMs that still ran at the end of the processed Azure 2017 trace in
huaweicloud/trace_generation_rnn (CC BY 4.0; Cortez et al., "Resource Central", SOSP 2017). Public data on dirty
rates was not found: they are lognormal.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sterna.domain.fleet.snapshot import Apart, Host, Rules, Snapshot, Vm

MIB, GIB = 1 << 20, 1 << 30
GBIT_S = 125_000_000
HUAWEI = (
    (32, 64, 4816), (4, 8, 3847), (2, 4, 3468), (8, 32, 3058), (2, 8, 1860), (4, 16, 1764), (16, 32, 1759),
    (32, 128, 1221), (16, 64, 1219), (8, 16, 1153), (64, 128, 420), (12, 24, 193), (12, 48, 85), (48, 96, 52),
    (48, 192, 46), (24, 48, 25), (64, 256, 2), (24, 96, 2),
)  # fmt: skip
"""(vCPUs, GiB, how many)."""
AZURE = (
    (1, 1.75, 10712), (2, 3.5, 6202), (4, 7, 3449), (8, 56, 1433), (8, 14, 963), (1, 0.75, 362), (1, 2, 75),
    (4, 28, 55), (2, 14, 38), (2, 4, 12), (16, 112, 6), (4, 8, 2), (8, 16, 1), (2, 16, 1),
)  # fmt: skip
DIRTY_MEDIAN, DIRTY_SIGMA = 20 * MIB, 1.2
APART_SHARE = 0.12
RACK = 16
OLD, NEW = frozenset({"v1"}), frozenset({"v1", "v2"})
"""What two CPU generations offer. A VM that was started on the newer one needs it."""


@dataclass(frozen=True)
class Fleet:
    """What to make."""

    hosts: int = 1000
    vms: int = 10_000
    used: float = 0.75
    """Of the memory, and of the vCPUs."""
    sizes: tuple[tuple[float, float, int], ...] = HUAWEI
    measured: bool = True
    """The planner is told the dirty rates."""


def make(fleet: Fleet, seed: int) -> Snapshot:
    """The snapshot. The same for the same seed."""
    rng = random.Random(seed)  # noqa: S311
    weights = [count for _, _, count in fleet.sizes]
    sizes = [
        (int(vcpus), int(gib * GIB)) for vcpus, gib, _ in rng.choices(fleet.sizes, weights=weights, k=fleet.vms)
    ]
    mem = int(sum(size for _, size in sizes) / fleet.used / fleet.hosts)
    mem = max(mem, int(1.2 * max(size for _, size in sizes)))
    cpus = max(int(sum(vcpus for vcpus, _ in sizes) / fleet.used / fleet.hosts), 2 * max(v for v, _ in sizes))
    hosts = [_host(number, mem, cpus, new=number % 2 == 1) for number in range(fleet.hosts)]
    apart = _groups(rng, fleet.vms)
    homes = _spread(rng, sizes, hosts, {v: n for n, group in enumerate(apart) for v in group})
    vms = tuple(_vm(rng, fleet, v, sizes[v], hosts[homes[v]]) for v in range(fleet.vms) if v in homes)
    rules = Rules(
        apart=tuple(
            Apart(name=f"group{n}", vms=frozenset(_uuid(v) for v in group)) for n, group in enumerate(apart)
        )
    )
    return Snapshot(hosts=tuple(hosts), vms=vms, rules=rules)


def _host(number: int, mem: int, cpus: int, *, new: bool) -> Host:
    return Host(
        name=f"h{number:04}",
        memory_bytes=mem,
        cpus=cpus,
        cpu=NEW if new else OLD,
        out_bytes_s=25 * GBIT_S,
        in_bytes_s=25 * GBIT_S,
        stream_bytes_s=10 * GBIT_S,
        domain=f"rack{number // RACK:03}",
    )


def _uuid(v: int) -> str:
    return f"vm{v:06}"


def _vm(rng: random.Random, fleet: Fleet, v: int, size: tuple[int, int], host: Host) -> Vm:
    dirty = rng.lognormvariate(0, DIRTY_SIGMA) * DIRTY_MEDIAN
    newer = host.cpu == NEW and rng.random() < 0.7
    return Vm(
        uuid=_uuid(v),
        name=_uuid(v),
        host=host.name,
        vcpus=size[0],
        memory_bytes=size[1],
        dirty_bytes_s=int(dirty) if fleet.measured else None,
        cpu=NEW if newer else OLD,
    )


def _groups(rng: random.Random, vms: int) -> list[list[int]]:
    """Anti-affinity groups of 2 to 16 VMs."""
    members = rng.sample(range(vms), int(APART_SHARE * vms))
    groups = []
    while len(members) > 1:
        size = rng.choice((2, 3, 6, 6, 8, 8, 16))
        groups.append(members[:size])
        members = members[size:]
    return [group for group in groups if len(group) > 1]


def _spread(
    rng: random.Random, sizes: list[tuple[int, int]], hosts: list[Host], group_of: dict[int, int]
) -> dict[int, int]:
    """A host for each VM that fits: the better of two random ones with room, the largest VMs first."""
    mem, cpu = [host.memory_bytes for host in hosts], [host.cpus for host in hosts]
    homes: dict[int, int] = {}
    taken: set[tuple[int, int]] = set()
    for v in sorted(range(len(sizes)), key=lambda v: -sizes[v][1]):
        vcpus, size = sizes[v]
        group = group_of.get(v, -1 - v)
        fitting: list[int] = []
        for h in (*(rng.randrange(len(hosts)) for _ in range(40)), *range(len(hosts))):
            if mem[h] >= size and cpu[h] >= vcpus and (group, h) not in taken:
                fitting.append(h)
                if len(fitting) == 2:
                    break
        if not fitting:
            continue
        h = max(fitting, key=lambda h: mem[h])
        mem[h], cpu[h], homes[v] = mem[h] - size, cpu[h] - vcpus, h
        taken.add((group, h))
    return homes
