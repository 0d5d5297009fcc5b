"""Parts of a lab hang, go on, die and come back: what fault tests rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sterna.lab import Lab, LabError, links, namespaces, sabotage
from sterna.lab.sabotage import Victim

pytestmark = pytest.mark.lab

GUEST = "victim"
LIST_RULES = ["ip", "rule", "show", "pref", str(links.RULES)]
Ask = Callable[[Lab], str]
"""Asks a part for something that only it can say."""


def host1(*argv: str) -> Ask:
    return lambda lab: lab.hosts["host1"].run(["timeout", "2", *argv], check=False).stdout


def outer(*argv: str) -> Ask:
    return lambda lab: lab.run(["timeout", "2", *argv], check=False).stdout


PARTS: dict[str, tuple[Callable[[Lab], Victim], Ask]] = {
    "libvirtd": (lambda lab: sabotage.libvirtd(lab, "host1"), host1("virsh", "-q", "uri")),
    "ovsdb-server": (lambda lab: sabotage.ovsdb_server(lab, "host1"), host1("ovs-vsctl", "list-br")),
    "ovs-vswitchd": (
        lambda lab: sabotage.ovs_vswitchd(lab, "host1"),
        host1("ovs-appctl", "-t", "/run/openvswitch/ovs-vswitchd.ctl", "version"),
    ),
    "qemu": (
        lambda lab: sabotage.qemu(lab, "host1", GUEST),
        host1("virsh", "-q", "qemu-monitor-command", GUEST, "--hmp", "info version"),
    ),
    "nats-server": (sabotage.nats_server, outer("bash", "-c", "exec 3<>/dev/tcp/10.73.0.1/4222; head -n 1 <&3")),
    "tgtd": (
        sabotage.tgtd,
        outer("env", "TGT_IPC_SOCKET=/srv/sterna/tgt/socket", "tgtadm", "--op", "show", "--mode", "sys"),
    ),
}
SILENT: dict[str, Callable[[Lab], Victim]] = {
    "agent": lambda lab: sabotage.agent(lab, "host1"),
    "controller": sabotage.controller,
}


@pytest.fixture(scope="module")
def lab(lab_folder: Path) -> Iterator[Lab]:
    lab = Lab.up(lab_folder / "sabotage", owner=True)
    try:
        lab.create_vm(GUEST, "host1", memory_mib=160, dirty_mib_s=0, disks=())
        yield lab
    finally:
        lab.down()


def stopped(victim: Victim) -> set[str]:
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] for pid in victim.pids()}


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_answers_nobody_until_it_is_thawed(lab: Lab, part: str) -> None:
    victim, ask = PARTS[part][0](lab), PARTS[part][1]
    assert ask(lab)
    sabotage.freeze(victim)
    try:
        assert stopped(victim) == {"T"}
        assert sabotage.frozen(victim)
        assert ask(lab) == ""
    finally:
        sabotage.thaw(victim)
    assert "T" not in stopped(victim)
    assert not sabotage.frozen(victim)
    assert ask(lab)


@pytest.mark.parametrize("part", SILENT)
def test_sternas_own_processes_can_hang_too(lab: Lab, part: str) -> None:
    victim = SILENT[part](lab)
    sabotage.freeze(victim)
    assert stopped(victim) == {"T"}
    sabotage.thaw(victim)
    assert "T" not in stopped(victim)
    lab.wait_ready()


def test_what_is_not_there_cannot_hang_go_on_or_die(lab: Lab) -> None:
    nobody = sabotage.qemu(lab, "host2", GUEST)
    for act in (sabotage.freeze, sabotage.thaw, sabotage.kill):
        with pytest.raises(LabError, match="there is no QEMU of victim on host2"):
            act(nobody)


def test_open_vswitch_is_killed_while_it_hangs_and_comes_back_with_its_ports(lab: Lab) -> None:
    before = lab.snapshot("host1")
    for part, start in (
        ("ovsdb-server", sabotage.start_ovsdb_server),
        ("ovs-vswitchd", sabotage.start_ovs_vswitchd),
    ):
        victim, ask = PARTS[part][0](lab), PARTS[part][1]
        sabotage.freeze(victim)
        sabotage.kill(victim)
        with pytest.raises(LabError, match="there is no ovs"):
            sabotage.thaw(victim)
        start(lab, "host1")
        assert ask(lab)
    assert lab.snapshot("host1") == before
    lab.guest(GUEST).status(timeout=30)


@pytest.mark.parametrize("fault", [links.cut, links.drop])
def test_a_broken_link_is_broken_once_more_and_mended_at_once(
    lab: Lab, fault: Callable[[links.Link], None]
) -> None:
    """Two links that end on one host are mended together; who mends one breaks the other again."""

    def rules() -> list[str]:
        return [
            line for end in (link.client, link.server) for line in end.inside.run(LIST_RULES).stdout.splitlines()
        ]

    link = links.storage_link(lab, lab.hosts["host1"])
    fault(link)
    try:
        once = rules()
        fault(link)
        assert once
        assert rules() == once
    finally:
        links.mend(link)
    assert rules() == []


def test_a_lab_with_frozen_parts_ends_like_any_other(lab_folder: Path) -> None:
    other = Lab.up(lab_folder / "frozen", hosts=1, agents=False, owner=True)
    victims = (
        sabotage.libvirtd(other, "host1"),
        sabotage.ovs_vswitchd(other, "host1"),
        sabotage.nats_server(other),
    )
    for victim in victims:
        sabotage.freeze(victim)
    pids = [namespaces.ProcessId.of(pid) for victim in victims for pid in victim.pids()]
    other.down()
    assert not any(pid.alive for pid in pids)
