"""The lab itself: hosts, guests and their own checks, plain libvirt migration, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.lab import Guest, GuestStatus, Lab, LabError, namespaces
from sterna.lab.ending import take_down

pytestmark = pytest.mark.lab

HOLD_A_LAB = """
import sys, time
from sterna.lab import Lab
Lab.up(sys.argv[1], hosts=1, agents=False, owner=True)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def guest(bare_lab: Lab) -> Guest:
    """A guest with a disk of each kind, on host1."""
    return bare_lab.create_vm("threedisks", "host1", dirty_mib_s=20, disks=("shared", "local", "iscsi"))


def eventually(check: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "not within the time limit"
        time.sleep(0.1)


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def test_every_host_is_a_host_of_its_own(bare_lab: Lab) -> None:
    for name, host in bare_lab.hosts.items():
        assert host.run(["hostname"]).stdout.strip() == name
        assert host.virsh("hostname").strip() == name
        assert host.run(["getent", "hosts", "host1", "host2"]).stdout.count("10.73.0.") == 2
        assert host.run([sys.executable, "-c", "import sterna.lab"]).returncode == 0
        assert "interface: uplink" not in host.run(["ovs-vsctl", "list-ports", "br-int"]).stdout
    uuids = {host.virsh("capabilities").split("<uuid>")[1][:36] for host in bare_lab.hosts.values()}
    assert len(uuids) == len(bare_lab.hosts)


def test_hosts_share_one_folder_and_nothing_else(bare_lab: Lab) -> None:
    bare_lab.host("host1").run(["sh", "-c", "echo x | tee /srv/sterna/shared/f /srv/sterna/instances/f"])
    other = bare_lab.host("host2")
    assert other.run(["cat", "/srv/sterna/shared/f"]).stdout == "x\n"
    assert other.run(["test", "-e", "/srv/sterna/instances/f"], check=False).returncode == 1
    bare_lab.host("host1").run(["rm", "/srv/sterna/shared/f", "/srv/sterna/instances/f"])
    assert other.run(["touch", "/srv/sterna/guest/f"], check=False).returncode != 0


def test_a_guest_checks_itself_and_finds_nothing(guest: Guest) -> None:
    first = guest.status()
    assert [disk.device for disk in first.disks] == ["vda", "vdb", "vdc"]

    def all_seen() -> bool:
        now = guest.status()
        return now.passes > first.passes and all(
            new.verified > old.verified for new, old in zip(now.disks, first.disks, strict=True)
        )

    eventually(all_seen)
    last = guest.status()
    assert last.clean, last.last_error
    assert last.boot_id == first.boot_id
    assert last.pages_verified > first.pages_verified


def test_pings_see_no_gap(bare_lab: Lab, guest: Guest) -> None:
    with bare_lab.ping(guest) as ping:
        time.sleep(2.0)
    assert ping.sent > 300
    assert ping.lost == 0
    assert ping.longest_gap_ms < 200


def test_a_guest_whose_tap_lost_its_vlan_tag_is_unreachable(bare_lab: Lab, guest: Guest) -> None:
    host = bare_lab.host("host1")
    find = ["ovs-vsctl", "--bare", "--columns=name", "find", "Interface"]
    tap = host.run([*find, f"external_ids:iface-id={guest.port_id}"]).stdout.strip()
    host.run(["ovs-vsctl", "remove", "Port", tap, "tag", "100"])
    try:
        with pytest.raises(LabError, match="does not answer"):
            guest.status(timeout=1.0)
    finally:
        host.run(["ovs-vsctl", "set", "Port", tap, "tag=100"])
    assert guest.status()


def test_an_unchanged_host_looks_the_same(bare_lab: Lab, guest: Guest) -> None:
    before = bare_lab.snapshot("host1")
    time.sleep(1.0)
    assert bare_lab.snapshot("host1") == before
    assert before["qemu"] == ["threedisks"]
    assert len(before["iscsi"]) == 1  # type: ignore[arg-type]
    assert guest.uuid in before["instances"]  # type: ignore[operator]
    assert sum(bare_lab.allocated_bytes("host1").values()) < 64 << 20, "the local disk is not thin"


def test_an_iscsi_volume_admits_nobody_until_told(bare_lab: Lab) -> None:
    bare_lab.create_iscsi_volume("lonely", 16)
    initiator = "iqn.2026-11.lab.sterna:host2"
    source = {"driver": "iscsi", "transport": "tcp", "portal": "10.73.0.1", "lun": 1}
    source |= {"target": "iqn.2026-11.lab.sterna:lonely", "initiator-name": initiator}
    try_it = ["qemu-img", "info", f"json:{json.dumps(source)}"]
    host = bare_lab.host("host2")
    assert bare_lab.tgt_admitted("lonely") == []
    assert host.run(try_it, check=False).returncode != 0
    # as an agent does it: from inside the host
    number = host.run(
        ["sh", "-c", "tgtadm --lld iscsi --mode target --op show | sed -n 's/^Target \\(.*\\): .*lonely/\\1/p'"]
    )
    bind = ["tgtadm", "--lld", "iscsi", "--mode", "target", "--op", "bind", "--tid", number.stdout.strip()]
    host.run([*bind, "--initiator-name", initiator])
    assert bare_lab.tgt_admitted("lonely") == [initiator]
    assert host.run(try_it, check=False).returncode == 0
    bare_lab.iscsi.expel("lonely", initiator)
    assert host.run(try_it, check=False).returncode != 0
    bare_lab.iscsi.remove("lonely")


def test_plain_libvirt_migrates_a_guest_there_and_back(bare_lab: Lab) -> None:
    guest = bare_lab.create_vm("traveller", "host1", dirty_mib_s=40, disks=("shared",))
    boot_id = guest.status().boot_id
    empty = bare_lab.snapshot("host2")
    for source, destination in (("host1", "host2"), ("host2", "host1")):
        uri = bare_lab.host(destination).peer_uri
        flags = ["--live", "--p2p", "--persistent", "--undefinesource"]
        with bare_lab.ping(guest) as ping:
            bare_lab.host(source).virsh("migrate", *flags, guest.name, uri)
            time.sleep(0.5)
        assert bare_lab.hosts_running(guest.name) == [destination]
        assert ping.longest_gap_ms < 2000
        passes = guest.status().passes
        eventually(lambda seen=passes: guest.status().passes > seen + 1)  # type: ignore[misc]
        assert guest.status().clean
    assert guest.status().boot_id == boot_id
    assert bare_lab.snapshot("host2") == empty
    bare_lab.remove_vm(guest.name)


@pytest.mark.parametrize(
    ("word", "count", "reason"),
    [
        ("corrupt-page", lambda status: status.page_errors, "torn or garbage"),
        ("stale-page", lambda status: status.page_errors, "lost or stale"),
        ("corrupt-block", lambda status: status.block_errors, "torn or garbage"),
        ("stale-block", lambda status: status.block_errors, "lost or stale"),
    ],
)
def test_the_checker_notices_damage(
    bare_lab: Lab, word: str, count: Callable[[GuestStatus], int], reason: str
) -> None:
    name = "damaged"
    guest = bare_lab.guest(name) if name in bare_lab.guest_records() else bare_lab.create_vm(name, "host2")
    before = count(guest.status())
    guest.send(word)
    eventually(lambda: count(guest.status()) == before + 1)
    status = guest.status()
    assert reason in status.last_error
    assert not status.clean


def test_a_crashed_guest_shows(bare_lab: Lab) -> None:
    guest = bare_lab.create_vm("crashing", "host2", disks=())
    with pytest.raises(LabError):
        guest.send("panic", timeout=0.3)
    eventually(lambda: bare_lab.hosts_running("crashing") == [])
    bare_lab.remove_vm("crashing")


def test_refusals_say_what_to_do(bare_lab: Lab, scratch_state: Path) -> None:
    with pytest.raises(LabError, match="there are host1, host2"):
        bare_lab.create_vm("nowhere", "host9")
    with pytest.raises(LabError, match="unknown kind of disk: floppy"):
        bare_lab.create_vm("odd", "host1", disks=("floppy",))
    with pytest.raises(LabError, match="sterna lab up"):
        Lab.attach(scratch_state)
    with pytest.raises(LabError, match="not visible inside"):
        Lab.up("/run/sterna-lab-test")


def test_down_leaves_nothing_and_up_over_a_live_lab_returns_it(scratch_state: Path) -> None:
    before = (mounts(), links())
    lab = Lab.up(scratch_state, hosts=1, agents=False, owner=True)
    assert Lab.up(scratch_state, agents=False).outer == lab.outer
    lab.create_vm("short", "host1", disks=("shared", "local"))
    inside = [pid for host in lab.hosts.values() for pid, _ in host.inside.processes()]
    inside += [pid for pid, _ in lab.outer.processes()]
    assert len(inside) > 8
    lab.down()
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]
    assert (mounts(), links()) == before
    assert not (scratch_state / "shared").exists()
    assert not take_down(scratch_state)


def test_a_killed_owner_takes_its_lab_along_and_does_not_block_the_next(scratch_state: Path) -> None:
    argv = [sys.executable, "-c", HOLD_A_LAB, str(scratch_state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert Lab.attach(scratch_state).run(["true"]).returncode == 0
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: namespaces.find(["lab", str(scratch_state)]) == [])
    assert (scratch_state / "lab.json").exists()
    lab = Lab.up(scratch_state, hosts=1, agents=False, owner=True)
    assert lab.host("host1").virsh("list", "--name").strip() == ""
    lab.down()


def test_a_half_made_or_garbled_lab_does_not_block_up(scratch_state: Path) -> None:
    Lab.up(scratch_state, hosts=1, agents=False)
    (scratch_state / "lab.json").write_text("{")
    lab = Lab.up(scratch_state, hosts=1, agents=False, owner=True)
    assert len(namespaces.find(["lab", str(scratch_state)])) == 1
    lab.down()


def test_a_recycled_pid_is_not_taken_for_the_lab(scratch_state: Path) -> None:
    lab = Lab.up(scratch_state, hosts=1, agents=False, owner=True)
    lab.down()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        record = lab._record
        record.outer.__dict__["pid"] = innocent.pid
        record.save(scratch_state)
        with pytest.raises(LabError):
            Lab.attach(scratch_state)
        take_down(scratch_state)
        assert innocent.poll() is None
        innocent.kill()
