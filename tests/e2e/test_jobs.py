"""Guests in the middle of something else, and what QEMU itself cannot migrate: refused, with the way out."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import plan, redefine, refused
from tests.narrowing import not_none

pytestmark = pytest.mark.lab

BACKUP = f"""<domainbackup mode='pull'><server transport='unix' socket='/run/backup.sock'/><disks>
<disk name='vda' type='file'><scratch file='{INSTANCES}/scratch'/></disk></disks></domainbackup>"""


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("busy", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), pace="calm")
    yield guest
    fleet.remove(guest)


def host1(fleet: Fleet, *command: str) -> str:
    return fleet.lab.hosts["host1"].run(list(command)).stdout


def one(fleet: Fleet, guest: Guest, code: str) -> dict[str, Any]:
    """The only reason, the same in the plan and at the start."""
    (planned,), (said,) = plan(fleet, guest.name), refused(fleet, guest.name)
    assert planned == said
    assert said["code"] == code, said
    return said


@contextlib.contextmanager
def a_backup(fleet: Fleet, guest: Guest) -> Iterator[None]:
    host1(fleet, "sh", "-c", f"echo {shlex.quote(BACKUP)} >/run/backup.xml")
    host1(fleet, "virsh", "backup-begin", guest.name, "/run/backup.xml")
    try:
        yield
    finally:
        host1(fleet, "virsh", "domjobabort", guest.name)
        fleet.eventually(lambda: "None" in host1(fleet, "virsh", "domjobinfo", guest.name))


def test_a_backup(fleet: Fleet, guest: Guest) -> None:
    with a_backup(fleet, guest):
        reasons = {r["code"]: r for r in refused(fleet, guest.name)}
        assert set(reasons) == {"vm-job-active", "disk-job-active"}
        assert "backed up" in reasons["vm-job-active"]["message"]
        assert "virsh domjobabort busy" in reasons["vm-job-active"]["fix"]
        assert "disk vda" in reasons["disk-job-active"]["message"]
    assert plan(fleet, guest.name) == []


def test_a_backup_that_begins_while_the_destination_prepares(fleet: Fleet, guest: Guest, no_faults: None) -> None:
    fleet.fault("host2", [{"step": "P10", "moment": "before", "action": "temporary"}])  # until it is taken away
    migration = fleet.started(guest.name, "host2")
    fleet.wait_for_row("host2", "connect-volumes", migration)
    with a_backup(fleet, guest):
        fleet.fault("host2", None)
        ended = fleet.wait(migration)
    assert ended["status"] == "failed"
    assert "backed up" in ended["reason"]
    fleet.wait_closed(migration)
    assert plan(fleet, guest.name) == []


def test_a_block_copy(fleet: Fleet, guest: Guest) -> None:
    copy = (
        "vda",
        f"{INSTANCES}/copy.qcow2",
        "--transient-job",
        "--wait",
    )  # until it is ready: else it becomes so later
    host1(fleet, "virsh", "blockcopy", guest.name, *copy)
    try:
        said = one(fleet, guest, "disk-job-active")
        assert "block copy of disk vda" in said["message"]
        assert "virsh blockjob busy vda --pivot" in said["fix"]
    finally:
        host1(fleet, "virsh", "blockjob", guest.name, "vda", "--abort")
        host1(fleet, "rm", "-f", f"{INSTANCES}/copy.qcow2")


def test_a_block_job_that_only_qemu_knows(fleet: Fleet, guest: Guest) -> None:
    """Somebody's own tool, past libvirt."""
    node = host1(
        fleet, "sh", "-c",
        "virsh qemu-monitor-command busy '{\"execute\":\"query-named-block-nodes\",\"arguments\":{\"flat\":true}}'"
        " | grep -o '\"node-name\":\"libvirt-[0-9]*-format\"' | head -1 | cut -d'\"' -f4",
    ).strip()  # fmt: skip
    target = f"{INSTANCES}/mine.qcow2"
    command = (
        f'{{"execute":"drive-mirror","arguments":{{"job-id":"mine","device":"{node}","target":"{target}",'
        f'"sync":"full","speed":1024,"format":"qcow2"}}}}'
    )
    host1(fleet, "virsh", "qemu-monitor-command", guest.name, command)
    cancel = '{"execute":"block-job-cancel","arguments":{"device":"mine","force":true}}'
    try:
        said = one(fleet, guest, "disk-job-active")
        assert "mirror mine" in said["message"]
    finally:
        host1(fleet, "virsh", "qemu-monitor-command", guest.name, cancel)
        fleet.eventually(lambda: not codes_of_plan(fleet, guest))
        host1(fleet, "rm", "-f", target)


def codes_of_plan(fleet: Fleet, guest: Guest) -> set[str]:
    return {reason["code"] for reason in plan(fleet, guest.name)}


def test_a_dump_pauses_the_guest_and_nobody_is_told_to_resume_it(fleet: Fleet, guest: Guest) -> None:
    # QEMU writes into a pipe that is full: the dump stands still in the middle
    host = fleet.lab.hosts["host1"]
    host.run(["mkfifo", "/run/dump.fifo"])
    host.run(["mkfifo", "/run/go.fifo"])
    reader = host.popen(
        ["sh", "-c", "exec 9<>/run/dump.fifo; echo; read line </run/go.fifo; exec cat <&9 >/dev/null"]
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    dump = host.popen(["virsh", "dump", guest.name, "/run/dump.fifo", "--memory-only"])
    try:
        fleet.eventually(lambda: host.virsh("domstate", guest.name).strip() == "paused")
        said = one(fleet, guest, "vm-job-active")
        assert "dumped" in said["message"]
        assert "resume" not in said["fix"]
    finally:
        host.run(["sh", "-c", "echo go on >/run/go.fifo"])
        dump.wait(60)
        reader.kill()
        reader.wait()
    assert host.virsh("domstate", guest.name).strip() == "running"
    assert plan(fleet, guest.name) == []


def test_snapshots(fleet: Fleet, guest: Guest) -> None:
    overlay = f"{INSTANCES}/{guest.uuid}/overlay.qcow2"
    host = fleet.lab.hosts["host1"]
    spec = ("--disk-only", "--diskspec", f"vda,file={overlay}")
    host.virsh("snapshot-create-as", guest.name, "before", *spec)
    try:
        said = next(r for r in refused(fleet, guest.name) if r["code"] == "vm-snapshots")
        assert "before" in said["message"]
        assert "virsh snapshot-delete busy" in said["fix"]
    finally:
        host.virsh("snapshot-delete", guest.name, "before", "--metadata")
        host.virsh("blockcommit", guest.name, "vda", "--active", "--pivot", "--wait")
        host.run(["rm", "-f", overlay])
    assert plan(fleet, guest.name) == []


@pytest.mark.parametrize("form", ["vmdk", "vdi"])
def test_a_format_that_qemu_cannot_migrate(fleet: Fleet, guest: Guest, form: str) -> None:
    path = f"{SHARED}/odd.{form}"
    host1(fleet, "qemu-img", "create", "-q", "-f", form, path, "16M")
    host1(fleet, "virsh", "attach-disk", guest.name, path, "vdb", "--subdriver", form, "--live")
    try:
        said = one(fleet, guest, "qemu-blocks-migration")
        assert f"The {form} format" in said["message"]
        assert "qemu-img convert" in said["fix"]
    finally:
        host1(fleet, "virsh", "detach-disk", guest.name, "vdb", "--live")
        fleet.eventually(lambda: "vdb" not in host1(fleet, "virsh", "domblklist", guest.name))
        host1(fleet, "rm", "-f", path)


def test_a_device_that_qemu_cannot_migrate(fleet: Fleet, guest: Guest) -> None:
    def add(xml: etree._Element) -> None:
        not_none(xml.find("devices")).append(etree.fromstring("<sound model='usb'/>"))

    def remove(xml: etree._Element) -> None:
        not_none(xml.find("devices")).remove(not_none(xml.find("devices/sound")))

    redefine(fleet, guest, "host1", add)
    try:
        assert "usb-audio" in one(fleet, guest, "qemu-blocks-migration")["message"]
    finally:
        redefine(fleet, guest, "host1", remove)
    assert plan(fleet, guest.name) == []
