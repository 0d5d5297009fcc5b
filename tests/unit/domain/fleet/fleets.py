"""Small fleets: by hand, and random ones with everything a VM may need."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sterna.domain.fleet.snapshot import (
    Apart,
    Cell,
    FailureDomain,
    Host,
    HostGroup,
    Limits,
    Rules,
    Scope,
    Snapshot,
    Together,
    Vm,
    disk,
    functions,
    huge,
)
from tests.unit.domain.fleet.usage import Usage

GIB, MIB = 1 << 30, 1 << 20
GBIT_S = 125_000_000
PAGE = 2 * MIB
OLD, NEW = frozenset({"v1"}), frozenset({"v1", "v2"})


def host(name: str, gib: int = 64, cpus: int = 32, **more: Any) -> Host:
    links = {"out_bytes_s": 25 * GBIT_S, "in_bytes_s": 25 * GBIT_S, "stream_bytes_s": 10 * GBIT_S}
    return Host.model_validate({"name": name, "memory_bytes": gib * GIB, "cpus": cpus} | links | more)


def vm(name: str, on: str, gib: int = 8, vcpus: int = 2, **more: Any) -> Vm:
    known = {"dirty_bytes_s": 20 * MIB}
    return Vm.model_validate(
        {"uuid": name, "name": name, "host": on, "memory_bytes": gib * GIB, "vcpus": vcpus} | known | more
    )


def fleet(hosts: list[Host], vms: list[Vm], **more: Any) -> Snapshot:
    return Snapshot(hosts=tuple(hosts), vms=tuple(vms), **more)


@st.composite
def _hosts(draw: st.DrawFn) -> Host:
    number = draw(st.integers(0, 9999))
    memory, cpus = draw(st.sampled_from([16, 32, 64])), draw(st.sampled_from([8, 16]))
    pool = draw(st.sampled_from([0, 16]))
    half = Cell(memory_bytes=memory * GIB // 2, cpus=cpus // 2, others={huge(PAGE): pool * GIB // 2})
    return host(
        f"h{number:04}",
        memory,
        cpus,
        overcommit=draw(st.sampled_from([1.0, 2.0])),
        others={huge(PAGE): pool * GIB, disk("local"): 100 * GIB, functions("fast"): draw(st.integers(0, 2))},
        cells=(half, half),
        cpu=draw(st.sampled_from([OLD, NEW, NEW])),
        networks=frozenset(draw(st.sampled_from([("a",), ("a", "b"), ("a", "b")]))),
        domain=draw(st.sampled_from(["", "r1", "r2", "r3"])),
        closed=draw(st.sampled_from(["", "", "", "", "broken fan"])),
        out_bytes_s=draw(st.sampled_from([10, 25])) * GBIT_S,
    )


@st.composite
def _vms(draw: st.DrawFn, on: Host, number: int) -> Vm:
    nodes = draw(st.sampled_from([0, 0, 0, 1, 2]))
    return vm(
        f"vm{number}",
        on.name,
        draw(st.sampled_from([1, 2, 4, 8, 16])),
        draw(st.sampled_from([1, 2, 4])),
        huge_page_bytes=draw(st.sampled_from([None, None, None, PAGE])),
        others=draw(st.sampled_from([{}, {}, {disk("local"): 40 * GIB}, {functions("fast"): 1}])),
        numa_nodes=nodes,
        on_cells=tuple(range(nodes)),
        cpu=draw(st.sampled_from([OLD, on.cpu])),
        networks=draw(st.sampled_from([frozenset({"a"}), frozenset({"a"}), on.networks])),
        dirty_bytes_s=draw(st.sampled_from([None, 0, 20 * MIB, 400 * MIB, 5000 * MIB])),
        priority=draw(st.sampled_from([0, 0, 1])),
        pinned=draw(st.sampled_from(["", "", "", "", "", "it has a PCI device"])),
    )


@st.composite
def crowded(draw: st.DrawFn) -> Snapshot:
    """Hosts that are nearly full, with VMs that need memory and vCPUs only: moves are in each other's way."""
    hosts = [host(f"h{number}", draw(st.integers(8, 24)), 64) for number in range(draw(st.integers(3, 6)))]
    vms: list[Vm] = []
    for one in hosts:
        free, spare = one.memory_bytes // GIB, draw(st.integers(0, 6))
        while free > spare:
            gib = min(free, draw(st.integers(1, 8)))
            vms.append(vm(f"vm{len(vms)}", one.name, gib, 1))
            free -= gib
    return fleet(hosts, vms, rules=Rules(apart=_rules(draw, hosts, vms).apart))


def fleets(least_hosts: int = 2) -> st.SearchStrategy[Snapshot]:
    """Fleets of both kinds."""
    return st.one_of(mixed(least_hosts), crowded())


@st.composite
def mixed(draw: st.DrawFn, least_hosts: int = 2) -> Snapshot:
    """A fleet within its capacities, with everything a VM may need, and rules that hold."""
    hosts = draw(st.lists(_hosts(), min_size=least_hosts, max_size=7, unique_by=lambda one: one.name))
    usage, vms = Usage(fleet(hosts, [])), []
    for number in range(draw(st.integers(1, 24))):
        one = draw(_vms(draw(st.sampled_from(hosts)), number))
        if usage.has_room(one, one.host):
            usage.count(one, one.host)
            vms.append(one)
    return fleet(
        hosts,
        vms,
        rules=_rules(draw, hosts, vms),
        domains=(FailureDomain(name="r1", up_bytes_s=draw(st.sampled_from([None, 5 * GBIT_S]))),),
        limits=Limits(fleet_bytes_s=draw(st.sampled_from([None, None, 30 * GBIT_S]))),
    )


def _rules(draw: st.DrawFn, hosts: list[Host], vms: list[Vm]) -> Rules:
    some = st.frozensets(st.sampled_from([one.uuid for one in vms]), max_size=4) if vms else st.just(frozenset())
    domain_of = {one.name: one.domain or one.name for one in hosts}
    apart: list[Apart] = []
    for scope in (Scope.HOST, Scope.HOST, Scope.DOMAIN):
        place_of = {one.uuid: one.host if scope is Scope.HOST else domain_of[one.host] for one in vms}
        members = {place_of[uuid]: uuid for uuid in sorted(draw(some))}
        apart.append(Apart(name=f"apart{len(apart)}", vms=frozenset(members.values()), scope=scope))
    together = sorted(draw(some))
    same_host = frozenset(one.uuid for one in vms if one.uuid in together and one.host == vms[0].host)
    near = frozenset(draw(st.sampled_from(hosts)).name for _ in range(2))
    return Rules(
        apart=tuple(apart),
        together=(Together(name="together", vms=same_host),),
        groups=(HostGroup(name="not there", vms=draw(some), hosts=near, never=True),),
        never_move=dict.fromkeys(draw(some) if draw(st.booleans()) else [], "licence"),
    )
