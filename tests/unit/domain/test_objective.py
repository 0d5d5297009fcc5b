"""The solver: every incompatible pair is known before the start; what was not demanded gives way and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sterna.domain.capabilities import Capabilities, Guest, Pair, version
from sterna.domain.compatibility import CLASHES, LEANS, NEEDS, Feature
from sterna.domain.hosts import Transport
from sterna.domain.model import Disk, DiskKind, GuestState, Vm
from sterna.domain.objective import IMPOSSIBLE, MIB, Asked, Solution, objective, solve
from sterna.domain.policies import POLICIES, May
from tests.narrowing import not_none

GIGABIT = 125_000_000
NEW: dict[str, Any] = {
    "libvirt_version": version(11, 3),
    "qemu_version": version(10, 1),
    "cpus": 32,
    "insecure": True,  # what may be sent in the clear has tests of its own
}
ABLE: dict[str, Any] = {
    "userfaultfd": True,
    "userfaultfd_hugepages": True,
    "tls": True,
    "zstd": True,
    "locked_memory": True,
}


def pair(
    source: Mapping[str, Any] | None = None, destination: Mapping[str, Any] | None = None, **both: Any
) -> Pair:
    return Pair(
        source=Capabilities(host="a", **NEW | both | dict(source or {})),
        destination=Capabilities(host="b", **NEW | both | dict(destination or {})),
    )


def guest(**more: Any) -> Guest:
    facts: dict[str, Any] = {"name": "tern", "vcpus": 2, "memory_bytes": 2**30}
    return Guest(**facts | more)


def solved(hosts: Pair, vm: Guest | None = None, *, converges: bool | None = None, **asked: Any) -> Solution:
    wanted, wrong = objective(Asked(**asked))
    assert wanted is not None, wrong
    return solve(wanted, hosts, vm or guest(), converges=converges)


def flags(solution: Solution) -> set[str]:
    assert solution.parameters is not None, solution.refusals
    return set(solution.parameters.flags)


# ------------------------------------------------------------ policies and what a user says


def test_each_policy_makes_an_objective_that_can_be_solved() -> None:
    for name in POLICIES:
        answer = solved(pair(**ABLE), policy=name)
        assert answer.parameters is not None
        assert answer.parameters.first_downtime_ms <= answer.parameters.max_downtime_ms


def test_what_the_user_says_stands_over_the_policy() -> None:
    wanted, _ = objective(Asked(policy="urgent", max_downtime_ms=80, may=frozenset(), finish_within_s=60))
    assert wanted is not None
    assert (wanted.max_downtime_ms, wanted.first_downtime_ms, wanted.may) == (80, 80, frozenset())
    assert wanted.finish_within_s == 60
    assert wanted.patience_s == POLICIES["urgent"].patience_s


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"policy": "gentel"}, "policy-unknown"),
        ({"max_downtime_ms": 0}, "downtime-out-of-range"),
        ({"max_downtime_ms": 2_000_001}, "downtime-out-of-range"),
        ({"finish_within_s": 0}, "deadline-out-of-range"),
        ({"finish_within_s": float("nan")}, "deadline-out-of-range"),
        ({"bandwidth_bytes_s": MIB - 1}, "bandwidth-out-of-range"),
    ],
)
def test_nonsense_is_refused_with_a_fix(asked: dict[str, Any], code: str) -> None:
    wanted, found = objective(Asked(**asked))
    assert wanted is None
    assert [r.code for r in found] == [code]
    assert all(r.fix for r in found)


def test_all_nonsense_is_named_at_once() -> None:
    _, found = objective(Asked(policy="x", max_downtime_ms=-1, finish_within_s=-1, bandwidth_bytes_s=1))
    assert len(found) == 4


def test_it_crosses_the_bus() -> None:
    asked = Asked(may=frozenset({May.POSTCOPY}), demands=frozenset({Feature.TLS}), transport=Transport.TLS)
    assert Asked.model_validate_json(asked.model_dump_json()) == asked


# ------------------------------------------------------------ single rules, by name

POSTCOPY: dict[str, Any] = {"may": frozenset({May.POSTCOPY})}
WITHOUT = [
    # hosts, guest, asked -> the feature that is left out, a word of the reason
    (pair(**ABLE | {"userfaultfd": False}), guest(), POSTCOPY, Feature.POSTCOPY, "userfaultfd"),
    (pair(**ABLE, destination={"userfaultfd": None}), guest(), POSTCOPY, Feature.POSTCOPY, "b may not use"),
    (pair(**ABLE, libvirt_version=version(8, 4)), guest(), POSTCOPY, Feature.POSTCOPY, "8.4"),
    (pair(**ABLE), guest(host_devices=("hostdev 0000:01:00.0",)), POSTCOPY, Feature.POSTCOPY, "pinned"),
    (pair(**ABLE), guest(nvdimm=True), POSTCOPY, Feature.POSTCOPY, "NVDIMM"),
    (pair(**ABLE | {"userfaultfd_hugepages": None}), guest(hugepages=True), POSTCOPY, Feature.POSTCOPY, "huge"),
    (pair(**ABLE), guest(), POSTCOPY | {"transport": Transport.SSH}, Feature.POSTCOPY, "own connection"),
    (pair(**ABLE, libvirt_version=version(10, 2)), guest(local_disks=("vda",)),
     POSTCOPY, Feature.POSTCOPY, "older than 10.3"),
    (pair(**ABLE, qemu_version=version(10, 0), link_bytes_s=10 * GIGABIT * 4), guest(),
     POSTCOPY, Feature.PARALLEL, "older than 10.1"),
    (pair(**ABLE, link_bytes_s=400 * GIGABIT), guest(),
     {"transport": Transport.SSH}, Feature.PARALLEL, "one connection"),
]  # fmt: skip


@pytest.mark.parametrize(("hosts", "vm", "asked", "feature", "word"), WITHOUT)
def test_what_cannot_be_is_left_out_with_a_warning(
    hosts: Pair, vm: Guest, asked: dict[str, Any], feature: Feature, word: str
) -> None:
    answer = solved(hosts, vm, **asked)
    assert answer.parameters is not None
    warning = next(w for w in answer.warnings if w.startswith(f"{feature} is not used"))
    assert word in warning
    assert not any(r.startswith(f"{feature}: ") for r in answer.reasons)


@pytest.mark.parametrize(("hosts", "vm", "asked", "feature", "word"), WITHOUT)
def test_and_refused_with_a_fix_where_it_was_demanded(
    hosts: Pair, vm: Guest, asked: dict[str, Any], feature: Feature, word: str
) -> None:
    others = frozenset({Feature.POSTCOPY} if asked == POSTCOPY else set())
    answer = solved(hosts, vm, **asked, demands=others | {feature})
    gone = {r.code for r in answer.refusals} | {w.split()[0] for w in answer.warnings}
    assert f"no-{feature}" in gone or (feature is Feature.POSTCOPY and "tls" in gone)
    assert all(r.fix for r in answer.refusals)


@pytest.mark.parametrize(
    ("hosts", "feature", "code"),
    [
        (pair(), Feature.POSTCOPY, "no-postcopy"),
        (pair(), Feature.ZSTD, "no-zstd"),
        (pair(), Feature.SYNC_WRITES, "no-sync-writes"),
        (pair(libvirt_version=version(11, 0)), Feature.SWITCHOVER_BANDWIDTH, "no-switchover-bandwidth"),
    ],
)
def test_a_demand_that_cannot_be_met_has_a_code_of_its_own(hosts: Pair, feature: Feature, code: str) -> None:
    answer = solved(hosts, may=frozenset(), demands=frozenset({feature}))
    assert [r.code for r in answer.refusals] == [code]
    assert answer.refusals[0].fix


def test_whatever_a_rule_can_take_away_has_a_code() -> None:
    taken = (
        {need.feature for need in NEEDS} | {clash.yields for clash in CLASHES} | {leans for leans, _, _ in LEANS}
    )
    assert set(IMPOSSIBLE) == taken


def test_disks_do_not_go_through_the_tunnel() -> None:
    answer = solved(pair(**ABLE), guest(local_disks=("vda", "vdb")), transport=Transport.SSH)
    assert [r.code for r in answer.refusals] == ["no-disks"]
    assert "shared storage" in answer.refusals[0].fix
    assert answer.parameters is None


def test_multifd_and_postcopy_go_together_from_qemu_10_1() -> None:
    link: dict[str, Any] = {"link_bytes_s": 40 * GIGABIT}
    assert {"PARALLEL", "POSTCOPY"} <= flags(solved(pair(**ABLE, **link), **POSTCOPY))
    old = solved(pair(**ABLE, **link, source={"qemu_version": version(10, 0)}), **POSTCOPY)
    assert "PARALLEL" not in flags(old)
    assert "POSTCOPY" in flags(old)


def test_who_demands_connections_gets_them_instead_of_postcopy() -> None:
    hosts = pair(**ABLE, link_bytes_s=40 * GIGABIT, qemu_version=version(10, 0))
    answer = solved(hosts, **POSTCOPY, demands=frozenset({Feature.PARALLEL}))
    assert "PARALLEL" in flags(answer)
    assert "POSTCOPY" not in flags(answer)
    assert any(w.startswith("postcopy is not used") for w in answer.warnings)


def test_who_demands_both_is_refused() -> None:
    hosts = pair(**ABLE, qemu_version=version(10, 0))
    answer = solved(hosts, demands=frozenset({Feature.PARALLEL, Feature.POSTCOPY}))
    assert [r.code for r in answer.refusals] == ["no-parallel"]


def test_zero_copy_stands_on_parallel_connections_and_takes_the_place_of_a_tls_nobody_demanded() -> None:
    asked = frozenset({Feature.ZEROCOPY, Feature.PARALLEL})
    answer = solved(pair(**ABLE, link_bytes_s=100 * GIGABIT), demands=asked)
    assert {"ZEROCOPY", "PARALLEL"} <= flags(answer)
    assert any(w.startswith("tls is not used") for w in answer.warnings)
    assert any("unencrypted" in w for w in answer.warnings)
    with_tls = solved(pair(**ABLE), demands=asked, transport=Transport.TLS)
    assert [r.code for r in with_tls.refusals] == ["no-zerocopy"]


def test_tls_is_never_dropped_from_under_a_user_who_asked_for_it() -> None:
    for hosts in (pair(), pair(**ABLE, source={"tls": None})):
        answer = solved(hosts, transport=Transport.TLS)
        assert [r.code for r in answer.refusals] == ["no-tls"]


def test_who_wants_tls_and_the_tunnel_is_refused() -> None:
    answer = solved(pair(**ABLE), transport=Transport.SSH, demands=frozenset({Feature.TLS}))
    assert [r.code for r in answer.refusals] == ["no-tls"]


def test_an_unencrypted_stream_is_said() -> None:
    assert any("unencrypted" in w for w in solved(pair()).warnings)
    assert not any("unencrypted" in w for w in solved(pair(**ABLE)).warnings)


# ------------------------------------------------------------ what may be sent in the clear

INSECURE: dict[str, Any] = {"insecure": True}
SECURE: dict[str, Any] = {"insecure": False}


@pytest.mark.parametrize("both", [{"insecure": None}, SECURE])
def test_memory_is_encrypted_unless_the_operators_of_both_hosts_allow_otherwise(both: dict[str, Any]) -> None:
    assert "TLS" in flags(solved(pair(**ABLE, **both)))
    assert [r.code for r in solved(pair(**both)).refusals] == ["no-tls"]


@pytest.mark.parametrize(("source", "destination", "named"), [(SECURE, INSECURE, "a"), (INSECURE, SECURE, "b")])
def test_one_host_cannot_talk_the_other_out_of_encryption(
    source: dict[str, Any], destination: dict[str, Any], named: str
) -> None:
    assert "TLS" in flags(solved(pair(source, destination, **ABLE)))
    assert [r.code for r in solved(pair(source, destination)).refusals] == ["no-tls"]
    asked = solved(pair(source, destination, **ABLE), transport=Transport.TCP)
    assert [r.code for r in asked.refusals] == ["transport-unencrypted"]
    assert asked.refusals[0].message.startswith(f"{named} does not allow")
    assert "insecure = true" in asked.refusals[0].fix
    in_the_clear = {"transport": Transport.TCP}
    settled = solved(pair(source | in_the_clear, destination | in_the_clear, **ABLE))
    assert [r.code for r in settled.refusals] == ["transport-unencrypted"]


def test_zero_copy_does_not_take_the_place_of_a_tls_that_is_needed() -> None:
    wanted = frozenset({Feature.ZEROCOPY, Feature.PARALLEL})
    answer = solved(pair(**ABLE, **SECURE, link_bytes_s=100 * GIGABIT), demands=wanted)
    assert [r.code for r in answer.refusals] == ["no-zerocopy"]


def test_ssh_is_encrypted_as_well() -> None:
    assert "TUNNELLED" in flags(solved(pair(**SECURE), may=frozenset(), transport=Transport.SSH))


# ------------------------------------------------------------ numbers


def test_the_number_of_connections_follows_link_cpus_vcpus_and_encryption() -> None:
    def connections(vcpus: int = 32, **more: Any) -> object:
        answer = solved(pair(**more), guest(vcpus=vcpus), may=frozenset())
        return not_none(answer.parameters).parameters.get("parallel.connections")

    assert connections(link_bytes_s=GIGABIT * 10) is None
    assert connections(link_bytes_s=GIGABIT * 25) == 3
    assert connections(link_bytes_s=GIGABIT * 10, tls=True) == 5
    assert connections(link_bytes_s=GIGABIT * 400) == 16
    assert connections(link_bytes_s=GIGABIT * 400, cpus=4) == 4
    assert connections(link_bytes_s=GIGABIT * 400, vcpus=8) == 8
    assert connections(link_bytes_s=GIGABIT * 400, vcpus=1) == 2  # its threads run in the guest's share
    assert connections() is None


def test_a_disk_must_be_whole_by_the_deadline_where_its_writer_may_be_slowed_down() -> None:
    disk, may = guest(local_disks=("vda",)), frozenset({May.THROTTLE})
    flag = "NON_SHARED_SYNCHRONOUS_WRITES"
    assert flag in flags(solved(pair(), disk, may=may, finish_within_s=60))
    for answer in (
        solved(pair(), disk, may=may),
        solved(pair(), disk, may=frozenset(), finish_within_s=60),
        solved(pair(), may=may, finish_within_s=60),
        solved(pair(libvirt_version=version(7, 9)), disk, may=may, finish_within_s=60),
    ):
        assert flag not in flags(answer)


def test_what_may_be_pinned_is_sent_without_a_copy_of_it() -> None:
    fast: dict[str, Any] = {"link_bytes_s": GIGABIT * 40}
    assert "ZEROCOPY" in flags(solved(pair(locked_memory=True, **fast), may=frozenset()))
    source_only = pair(source={"locked_memory": True}, **fast)
    assert "ZEROCOPY" in flags(solved(source_only, may=frozenset()))
    only_there = pair(destination={"locked_memory": True}, **fast)
    for hosts in (only_there, pair(**ABLE, **fast), pair(locked_memory=True)):
        assert "ZEROCOPY" not in flags(solved(hosts, may=frozenset()))


@pytest.mark.parametrize(
    ("source", "destination", "transport"),
    [
        (None, None, Transport.TLS),
        (Transport.TCP, None, Transport.TCP),
        (Transport.TCP, Transport.TLS, Transport.TLS),
        (Transport.SSH, Transport.TCP, Transport.SSH),
        (None, Transport.SSH, Transport.SSH),
        (Transport.TLS, Transport.SSH, Transport.TLS),
    ],
)
def test_memory_travels_as_the_operators_set_it_and_the_stricter_host_wins(
    source: Transport | None, destination: Transport | None, transport: Transport
) -> None:
    hosts = pair({"transport": source}, {"transport": destination}, **ABLE)
    answer = solved(hosts, may=frozenset())
    assert answer.parameters is not None
    assert answer.parameters.transport is transport


def test_a_host_that_is_set_to_tls_sends_nothing_in_the_clear() -> None:
    answer = solved(pair(**ABLE, destination={"transport": Transport.TLS}), transport=Transport.TCP)
    assert [r.code for r in answer.refusals] == ["transport-unencrypted"]
    assert "b" in answer.refusals[0].fix
    without = solved(pair(source={"transport": Transport.TLS}))  # no certificates: refused, not sent anyway
    assert [r.code for r in without.refusals] == ["no-tls"]
    tunnelled = solved(pair(**ABLE, source={"transport": Transport.TLS}), transport=Transport.SSH)
    assert tunnelled.parameters is not None


def test_a_slow_link_is_compressed_where_there_are_cpus() -> None:
    answer = solved(pair(**ABLE, link_bytes_s=GIGABIT), may=frozenset())
    assert not_none(answer.parameters).parameters["compression"] == "zstd"
    assert {"COMPRESSED", "PARALLEL"} <= flags(answer)
    assert not_none(answer.parameters).parameters["parallel.connections"] == 2
    assert "COMPRESSED" not in flags(solved(pair(**ABLE), bandwidth_bytes_s=40 * MIB, may=frozenset()))
    assert "COMPRESSED" not in flags(solved(pair(**ABLE | {"cpus": 2}, link_bytes_s=GIGABIT), may=frozenset()))
    old = solved(pair(**ABLE, link_bytes_s=GIGABIT, qemu_version=version(10, 0)), **POSTCOPY)
    assert "COMPRESSED" not in flags(old)  # it stands on parallel, which gave way to post-copy


def test_a_limit_counts_for_postcopy_too_and_the_switch_over_knows_the_link() -> None:
    answer = solved(pair(**ABLE, link_bytes_s=1000 * MIB), bandwidth_bytes_s=200 * MIB, **POSTCOPY)
    numbers = not_none(answer.parameters).parameters
    assert (numbers["bandwidth"], numbers["bandwidth.postcopy"]) == (200, 200)
    assert numbers["bandwidth.avail.switchover"] == 1000
    old = solved(pair(**ABLE, link_bytes_s=1000 * MIB, libvirt_version=version(11, 0)), bandwidth_bytes_s=200 * MIB)
    assert "bandwidth.avail.switchover" not in not_none(old.parameters).parameters


def test_a_gentle_copy_takes_half_of_a_link_that_is_known() -> None:
    assert (
        not_none(solved(pair(link_bytes_s=1000 * MIB), policy="gentle").parameters).parameters["bandwidth"] == 500
    )
    assert "bandwidth" not in not_none(solved(pair(), policy="gentle").parameters).parameters


def test_a_guest_that_converges_by_itself_is_not_throttled() -> None:
    throttle: dict[str, Any] = {"may": frozenset({May.THROTTLE})}
    assert "AUTO_CONVERGE" not in flags(solved(pair(), converges=True, **throttle))
    for unsure in (None, False):
        answer = solved(pair(), converges=unsure, **throttle)
        assert "AUTO_CONVERGE" in flags(answer)
        assert not_none(answer.parameters).parameters["auto_converge.initial"] == 20


def test_a_guest_from_its_description() -> None:
    disks = (Disk(target="vda", kind=DiskKind.FILE, local=True), Disk(target="vdb", kind=DiskKind.FILE))
    vm = Vm(
        uuid="u", name="tern", state=GuestState.RUNNING, memory_bytes=5, vcpus=2, disks=disks,
        immovable=("hostdev 0000:01:00.0", "virtiofs share /x"),
    )  # fmt: skip
    assert Guest.of(vm) == Guest(
        name="tern", vcpus=2, memory_bytes=5, local_disks=("vda",), host_devices=("hostdev 0000:01:00.0",)
    )
