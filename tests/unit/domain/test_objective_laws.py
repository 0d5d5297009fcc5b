"""The solver over arbitrary pairs of hosts, guests and wishes: no incompatible pair starts, no demand is lost."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.domain.capabilities import Capabilities, Guest, Pair, version
from sterna.domain.compatibility import CLASHES, LEANS, NEEDS, Feature
from sterna.domain.hosts import Transport
from sterna.domain.objective import MIB, Asked, objective, solve
from sterna.domain.policies import POLICIES, May
from tests.narrowing import not_none

versions = st.sampled_from(
    [version(*v) for v in ((4, 0), (7, 2), (8, 5), (9, 4), (10, 0), (10, 1), (11, 3), (12, 0))]
)
maybe = st.none() | st.booleans()
hosts = st.builds(
    Capabilities,
    host=st.sampled_from(["a", "b"]),
    libvirt_version=versions,
    qemu_version=versions,
    cpus=st.integers(1, 128),
    userfaultfd=maybe,
    userfaultfd_hugepages=maybe,
    tls=maybe,
    zstd=maybe,
    locked_memory=maybe,
    link_bytes_s=st.none() | st.integers(1, 10**11),
    transport=st.none() | st.sampled_from(Transport),
    insecure=maybe,
)
pairs = st.builds(Pair, source=hosts, destination=hosts)
guests = st.builds(
    Guest,
    name=st.just("tern"),
    vcpus=st.integers(1, 64),
    memory_bytes=st.integers(1, 2**42),
    local_disks=st.sampled_from([(), ("vda",)]),
    hugepages=st.booleans(),
    host_devices=st.sampled_from([(), ("hostdev x",)]),
    nvdimm=st.booleans(),
)
wishes = st.builds(
    Asked,
    policy=st.sampled_from(sorted(POLICIES)),
    may=st.none() | st.frozensets(st.sampled_from(May)),
    transport=st.none() | st.sampled_from(Transport),
    bandwidth_bytes_s=st.none() | st.integers(MIB, 10**11),
    demands=st.frozensets(st.sampled_from([f for f in Feature if f is not Feature.DISKS])),
)
FLAG_OF = {"TLS": Feature.TLS, "TUNNELLED": Feature.TUNNELLED, "POSTCOPY": Feature.POSTCOPY,
           "AUTO_CONVERGE": Feature.THROTTLE, "PARALLEL": Feature.PARALLEL, "COMPRESSED": Feature.ZSTD,
           "ZEROCOPY": Feature.ZEROCOPY, "NON_SHARED_DISK": Feature.DISKS,
           "NON_SHARED_SYNCHRONOUS_WRITES": Feature.SYNC_WRITES}  # fmt: skip


@given(wishes, pairs, guests, maybe)
@settings(max_examples=400)
def test_no_incompatible_pair_ever_starts_and_no_demand_is_lost(
    asked: Asked, hosts: Pair, vm: Guest, converges: bool | None
) -> None:
    wanted, _ = objective(asked)
    answer = solve(not_none(wanted), hosts, vm, converges=converges)
    assert (answer.parameters is None) == bool(answer.refusals)
    assert all(r.fix for r in answer.refusals)
    assert all(a.code != b.code for a, b in itertools.combinations(answer.refusals, 2))
    if answer.parameters is None:
        return
    on = {FLAG_OF[f] for f in answer.parameters.flags if f in FLAG_OF}
    if "bandwidth.avail.switchover" in answer.parameters.parameters:
        on.add(Feature.SWITCHOVER_BANDWIDTH)
    assert not [n for n in NEEDS if n.feature in on and n.missing(hosts, vm)]
    assert not [c for c in CLASHES if {c.keeps, c.yields, *c.given} <= on and c.when(hosts, vm)]
    assert not [x for x, ground, _ in LEANS if x in on and ground not in on]
    assert not_none(wanted).demands - {Feature.SWITCHOVER_BANDWIDTH} <= on
    assert (Feature.DISKS in on) == bool(vm.local_disks)
    assert asked.transport is not Transport.TLS or Feature.TLS in on
    assert asked.transport is not Transport.SSH or Feature.TUNNELLED in on
    set_to_tls = any(host.transport is Transport.TLS for host in hosts.both)
    in_the_clear = all(host.insecure for host in hosts.both) and not set_to_tls
    assert in_the_clear or on & {Feature.TLS, Feature.TUNNELLED}
    assert (
        Feature.POSTCOPY not in on
        or May.POSTCOPY in not_none(wanted).may
        or Feature.POSTCOPY in not_none(wanted).demands
    )
    limit = asked.bandwidth_bytes_s
    assert limit is None or answer.parameters.parameters["bandwidth"] == limit // MIB


def test_every_rule_names_its_source() -> None:
    assert all(need.source and need.fix for need in NEEDS)
    assert all(clash.source and clash.fix for clash in CLASHES)
    assert all(source for _, _, source in LEANS)
