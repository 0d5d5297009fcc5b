"""Each check of the doctor is red once, and what its fix changes makes it green."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.doctor.catalogue import CHECKS, FLEET, HOST, PAIR
from sterna.domain.doctor.findings import Finding, Level, worst
from sterna.domain.doctor.fleet import Skew, compare
from sterna.domain.doctor.host import judge_host
from sterna.domain.doctor.looks import CertificateSeen, FolderSeen, Frames, HostLook, PeerLook
from sterna.domain.doctor.pairs import judge_peer
from sterna.domain.hosts import Abilities, HostFacts
from sterna.domain.model import Refusal
from sterna.domain.refusals import CATALOGUE, GROUPS

WELL = Abilities(userfaultfd=True, tls=True)


def facts(number: int = 1, **more: Any) -> HostFacts:
    known: dict[str, Any] = {
        "name": f"h{number}",
        "host_uuid": f"00000000-0000-4000-8000-{number:012d}",
        "address": f"10.0.0.{number}",
        "libvirt_version": 11_003_000,
        "qemu_version": 10_000_002,
        "memory_total_bytes": 2**34,
        "memory_free_bytes": 2**33,
        "cpus": 4,
        "abilities": WELL,
        "initiator": f"iqn.2026-11.example:h{number}",
    }
    return HostFacts.model_validate(known | more)


def look(number: int = 1, of: dict[str, Any] | None = None, **more: Any) -> HostLook:
    """A host on which all is well, but for `more`; `of`: but for these facts."""
    known: dict[str, Any] = {
        "host": f"h{number}",
        "facts": facts(number, **(of or {})),
        "kvm": True,
        "security_models": ("apparmor", "dac"),
        "apparmor": True,
        "max_client_requests": 50,
        "clock_synchronised": True,
        "address": f"10.0.0.{number}",
        "address_is_own": True,
        "device": "bond0",
        "mtu": 9000,
        "ports": "49152-49215",
        "ports_free": 64,
        "huge_pages": {2 << 20: 512},
        "bridges": ("br0",),
        "ovs_error": "",
        "ovs_bridges": ("br-int",),
        "state_dir": "/var/lib/sterna",
        "state_free_bytes": 10 << 30,
        "instances_free_bytes": 100 << 30,
        "certificates": (CertificateSeen(file="/own.crt", serves="the bus", ends="2026-12-01T00:00:00+00:00"),),
        "enrolled": True,
        "nova_vms": 0,
    }
    return HostLook.model_validate(known | more)


def expired(**more: Any) -> tuple[CertificateSeen, ...]:
    return (CertificateSeen(file="/own.crt", serves="the bus", ends="2026-12-01T00:00:00+00:00", **more),)


ON_HOST: list[tuple[str, Level, dict[str, Any], str]] = [
    ("bus", Level.WRONG, {"bus_error": "connection refused"}, "connection refused"),
    ("libvirt", Level.WRONG, {"facts": None, "libvirt_error": "no answer within 4 s"}, "no answer within 4 s"),
    ("versions", Level.WARNING, {"of": {"qemu_version": 7_002_000}}, "QEMU 7.2.0"),
    ("versions", Level.WARNING, {"of": {"libvirt_version": 8_000_000}}, "libvirt 8.0.0"),
    ("kvm", Level.WRONG, {"kvm": False}, "no KVM"),
    ("encryption", Level.WRONG, {"of": {"abilities": Abilities(userfaultfd=True, tls=False)}}, "no certificates"),
    (
        "encryption",
        Level.WARNING,
        {"of": {"abilities": Abilities(userfaultfd=True, tls=True, insecure=True)}},
        "UNENCRYPTED",
    ),
    ("certificates", Level.WRONG, {"certificates": expired(faults=("it expired",))}, "it expired"),
    ("certificates", Level.WARNING, {"certificates": expired(warned=True)}, "expires on 2026-12-01"),
    ("enrolment", Level.WARNING, {"enrolled": False}, "does not authenticate"),
    ("clock", Level.WARNING, {"clock_synchronised": False}, "not synchronised"),
    ("address", Level.WRONG, {"address_error": "h1.example cannot be resolved"}, "cannot be resolved"),
    ("address", Level.WARNING, {"address_is_own": False}, "no device of this host"),
    ("max-client-requests", Level.WARNING, {"max_client_requests": 5}, "5 calls"),
    ("userfaultfd", Level.WARNING, {"of": {"abilities": Abilities(userfaultfd=False, tls=True)}}, "post-copy"),
    ("stream-ports", Level.WRONG, {"ports_free": 0}, "0 ports of 49152-49215"),
    ("stream-ports", Level.WARNING, {"ports_free": 3}, "3 ports"),
    ("open-vswitch", Level.WRONG, {"ovs_error": "no connection"}, "no connection"),
    ("security-driver", Level.WARNING, {"security_models": ("dac",)}, "does not confine"),
    (
        "security-driver",
        Level.WARNING,
        {"security_models": ("none",), "apparmor": False},
        "does not confine guests",
    ),
    ("security-driver", Level.WARNING, {"security_models": (), "apparmor": None}, "does not confine guests"),
    ("journal", Level.WRONG, {"state_error": "Permission denied"}, "Permission denied"),
    ("journal", Level.WARNING, {"state_free_bytes": 5 << 20}, "5 MiB free"),
    ("instances-dir", Level.WRONG, {"instances_error": "there is no folder /x"}, "no folder /x"),
    ("instances-dir", Level.WARNING, {"instances_free_bytes": 0}, "0 GiB free"),
    ("bus-rights", Level.WRONG, {"allow_responses": "/etc/nats-server.conf"}, "under any name"),
    ("nova", Level.WARNING, {"nova_vms": 3}, "3 VMs"),
    ("agent", Level.WARNING, {"unseen": ("Open vSwitch: no answer",)}, "Open vSwitch: no answer"),
]


def of(check: str, found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.check == check]


@pytest.mark.parametrize(("check", "level", "wrong", "words"), ON_HOST)
def test_a_host_is_red_and_its_fix_makes_it_green(
    check: str, level: Level, wrong: dict[str, Any], words: str
) -> None:
    found = of(check, judge_host(look(**wrong)))
    assert worst(found) is level and any(words in one.message and one.fix for one in found)
    assert worst(of(check, judge_host(look()))) is Level.OK


def test_a_host_on_which_all_is_well_has_a_line_for_each_requirement() -> None:
    found = judge_host(look())
    assert worst(found) is Level.OK
    own = {check.name for check in HOST} - {"agent", "bus-rights"}  # seen by the controller; nothing was seen
    assert {one.check for one in found} == own and not any(one.fix for one in found)


def test_what_was_not_seen_is_no_line() -> None:
    """Neither well nor wrong."""
    found = judge_host(HostLook(host="h1", facts=facts(abilities=Abilities())))
    assert {one.check for one in found} == {"bus", "libvirt", "versions"}


def test_a_controller_that_asks_the_nova_is_content() -> None:
    assert worst(of("nova", judge_host(look(nova_vms=3), knows_nova=True))) is Level.OK


REFUSED = Refusal(code="stream-blocked", message="no memory stream reaches 10.0.0.2", fix="open the firewall")
SEES = FolderSeen(path="/srv/shared", network=True, seen=True)
ON_THE_WAY: list[tuple[str, Level, dict[str, Any], str]] = [
    ("name-resolution", Level.WRONG, {"name_error": "no such name"}, "no such name"),
    ("peer-libvirt", Level.WRONG, {"libvirt": REFUSED.model_copy(update={"code": "peer-unreachable"})}, "10.0.0.2"),
    ("peer-stream", Level.WRONG, {"stream": REFUSED}, "10.0.0.2"),
    ("peer-stream", Level.WARNING, {"error": "the bus is away"}, "the bus is away"),
    ("path-mtu", Level.WRONG, {"frames": Frames.LOST, "segment": 8948}, "8948 bytes"),
    ("shared-folders", Level.WRONG, {"folders": (SEES.model_copy(update={"taken_for_local": True}),)}, "refused"),
    ("shared-folders", Level.WARNING, {"folders": (SEES.model_copy(update={"seen": False}),)}, "does not see it"),
]


def way(**more: Any) -> PeerLook:
    known: dict[str, Any] = {"peer": "h2", "address": "10.0.0.2", "stream_tried": True, "frames": Frames.PASSED}
    return PeerLook.model_validate(known | {"folders": (SEES,)} | more)


@pytest.mark.parametrize(("check", "level", "wrong", "words"), ON_THE_WAY)
def test_a_way_is_red_and_its_fix_makes_it_green(
    check: str, level: Level, wrong: dict[str, Any], words: str
) -> None:
    (found,) = of(check, judge_peer("h1", way(**wrong)))
    assert found.level is level and words in found.message and found.fix and found.peer == "h2"
    well = judge_peer("h1", way())
    assert worst(well) is Level.OK and {one.check for one in well} == {check.name for check in PAIR}


def test_folders_that_are_no_trouble() -> None:
    local = FolderSeen(path="/var/lib/libvirt/images", network=False, seen=False)
    unknown = FolderSeen(path="/x", network=True)
    (found,) = of("shared-folders", judge_peer("h1", way(folders=(local, unknown))))
    assert found.level is Level.OK and "copied" in found.message


SIDE_BY_SIDE: list[tuple[str, Level, HostLook, HostLook]] = [
    ("host-uuid", Level.WRONG, look(2, of={"host_uuid": facts(1).host_uuid}), look(2)),
    ("initiator", Level.WRONG, look(2, of={"initiator": facts(1).initiator}), look(2)),
    ("initiator", Level.WARNING, look(2, of={"initiator": None}), look(2)),
    ("same-versions", Level.WARNING, look(2, of={"qemu_version": 9_000_000}), look(2)),
    ("same-mtu", Level.WARNING, look(2, mtu=1500), look(2)),
    ("security-driver", Level.WARNING, look(2, security_models=("selinux",)), look(2)),
    ("huge-pages", Level.WARNING, look(2, huge_pages={2 << 20: 0}), look(2)),
    ("bridges", Level.WARNING, look(2, bridges=()), look(2)),
    ("bridges", Level.WARNING, look(2, ovs_bridges=()), look(2)),
]


@pytest.mark.parametrize(("check", "level", "wrong", "right"), SIDE_BY_SIDE)
def test_hosts_side_by_side_are_red_and_the_fix_makes_them_green(
    check: str, level: Level, wrong: HostLook, right: HostLook
) -> None:
    red = of(check, compare([look(1), look(3), wrong], {}, {}))
    assert worst(red) is level and all(one.fix for one in red if one.level is not Level.OK)
    green = of(check, compare([look(1), look(3), right], {}, {}))
    assert green and worst(green) is Level.OK


@pytest.mark.parametrize(
    ("skew", "level"), [(0.3, Level.OK), (-3.0, Level.WARNING), (5.0, Level.WARNING), (-90.0, Level.WRONG)]
)
def test_clocks(skew: float, level: Level) -> None:
    (found,) = compare([look()], {"h1": Skew(ahead_s=skew)}, {})
    assert (found.check, found.level, found.host) == ("clock", level, "h1") and bool(found.fix) != (
        level is Level.OK
    )


@pytest.mark.parametrize(
    "size, words", [(64 << 10, "64 KiB"), (2 << 20, "2 MiB"), (512 << 20, "512 MiB"), (1 << 30, "1 GiB")]
)
def test_sizes_of_pages_are_named(size: int, words: str) -> None:
    found = of("huge-pages", compare([look(1, huge_pages={size: 7}), look(2, huge_pages={})], {}, {}))
    assert any(f"huge pages of {words}," in one.message for one in found)


def test_addresses_as_they_were_enrolled() -> None:
    (wrong,) = compare([look()], {}, {"h1": ("10.9.9.9",)})
    assert (wrong.check, wrong.level) == ("address", Level.WRONG) and "--address 10.0.0.1" in wrong.fix
    (right,) = compare([look()], {}, {"h1": ("10.0.0.1",)})
    assert right.level is Level.OK
    assert compare([look()], {}, {"h1": None}) == []


def test_one_host_is_compared_with_nobody() -> None:
    assert compare([look()], {}, {}) == []


def test_every_check_is_made_red_here() -> None:
    red = {check for check, *_ in (*ON_HOST, *ON_THE_WAY)} | {check for check, *_ in SIDE_BY_SIDE}
    assert red == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS) == len(HOST) + len(PAIR) + len(FLEET)


WHICH_VM = {
    "The VM", "CPU, memory and machine", "Disks", "Secrets", "Network", "Resources in the definition"
}  # fmt: skip
"""Groups of the catalogue whose refusals depend on the VM."""
NOT_FORETOLD = {
    "it depends on what is asked for": """no-such-host no-destination same-host fencing-not-confirmed host-answers
        host-gone no-open-host no-disks no-parallel no-zstd no-zerocopy no-sync-writes no-switchover-bandwidth
        policy-unknown downtime-out-of-range deadline-out-of-range bandwidth-out-of-range deadline-missed
        placement-rule hosts-down-together webhook-not-allowed
        rebalance-off nothing-to-bring-back""",
    "it passes, or is an operator's own word": "destination-in-maintenance destination-not-clean check-failed",
    "it depends on the volume, or on its service": """shared-file-unusable volume-missing volume-service-down
        volume-shared target-shared volume-multiattach volume-encrypted volume-read-only volume-state
        volume-attachments volume-transport volume-host-attached volume-chap""",
}
"""Refusals of the other groups that no look at a host can tell beforehand, by why."""


def test_each_refusal_that_can_be_told_beforehand_is() -> None:
    foretold = {code for check in CHECKS for code in check.foretells}
    excused = {code for codes in NOT_FORETOLD.values() for code in codes.split()}
    assert foretold <= set(CATALOGUE) and excused <= set(CATALOGUE) and not foretold & excused
    others = {entry.code for group in GROUPS if group.title not in WHICH_VM for entry in group.entries}
    assert {group.title for group in GROUPS} >= WHICH_VM
    assert others - foretold - excused == set()
