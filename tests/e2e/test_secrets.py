"""Disks opened with secrets of libvirt: a LUKS image on shared storage, and an iSCSI volume that wants CHAP."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from sterna.lab import secrets
from sterna.lab.guest_view import Guest
from sterna.lab.places import ISCSI_PORTAL_PORT, LAB_ADDRESS, initiator_name, target_name
from sterna.lab.record import DiskRecord
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("tern", "host1", memory_mib=256, dirty_mib_s=20, disks=("luks", "chap"))
    yield guest
    fleet.remove(guest)


def disks(fleet: Fleet, guest: Guest) -> list[DiskRecord]:
    return fleet.lab.guest_records()[guest.name].disks


def known(fleet: Fleet) -> dict[str, dict[str, str]]:
    return {name: secrets.values(host) for name, host in fleet.lab.hosts.items()}


def test_there_and_back_the_secrets_go_along_and_a_rollback_leaves_none(
    fleet: Fleet, guest: Guest, no_faults: None
) -> None:
    own = dict.fromkeys((disk.id for disk in disks(fleet, guest)), secrets.WORD)
    assert known(fleet) == {"host1": own, "host2": {}}
    before = guest.status()

    fleet.fault("host1", [{"step": "M4", "moment": "before", "action": "permanent"}])
    failed = fleet.started(guest.name, "host2")
    assert fleet.wait(failed)["status"] == "failed"
    fleet.wait_closed(failed)
    assert known(fleet) == {"host1": own, "host2": {}}
    fleet.fault("host1", None)

    for there, also in (("host2", own), ("host1", {})):
        migration = fleet.started(guest.name, there)
        assert fleet.wait(migration)["status"] == "completed"
        fleet.wait_closed(migration)
        assert fleet.lab.hosts_running(guest.name) == [there]
        assert known(fleet) == {"host1": own, "host2": also}

    after = guest.status()
    assert after.boot_id == before.boot_id
    assert after.clean, after.last_error
    assert after.blocks_verified > before.blocks_verified


def test_the_target_does_want_a_login(fleet: Fleet, guest: Guest) -> None:
    """Else the CHAP disk would prove nothing."""
    (here,) = fleet.lab.hosts_running(guest.name)
    (_, chap) = disks(fleet, guest)
    options = f"driver=iscsi,transport=tcp,portal={LAB_ADDRESS}:{ISCSI_PORTAL_PORT},lun=1"
    options += f",target={target_name(chap.id)},initiator-name={initiator_name(here)}"
    ask = ["timeout", "10", "qemu-img", "info"]
    word = ["--object", f"secret,id=word,data={secrets.WORD}"]
    login = f"{options},user={chap.id},password-secret=word"
    assert fleet.lab.hosts[here].run([*ask, *word, "--image-opts", login], check=False).returncode == 0
    assert fleet.lab.hosts[here].run([*ask, "--image-opts", options], check=False).returncode != 0


def test_the_word_is_in_no_journal_log_or_answer(fleet: Fleet, guest: Guest) -> None:
    written = fleet.api.get(f"/v1/vms/{guest.name}").text
    for name, host in fleet.lab.hosts.items():
        with sqlite3.connect(f"file:{host.root}/state/journal.db?mode=ro", uri=True) as db:
            written += "\n".join(db.iterdump())
        written += (fleet.lab.state_dir / "logs" / f"{name}.log").read_text(errors="replace")
        written += "".join(p.read_text(errors="replace") for p in host.root.glob("state/*.log"))
    assert "make-secrets" in written
    assert disks(fleet, guest)[0].id in written
    assert secrets.WORD not in written


def test_one_that_nobody_may_read_is_refused_with_the_command_that_helps(fleet: Fleet, guest: Guest) -> None:
    (luks, _) = disks(fleet, guest)
    (here,) = fleet.lab.hosts_running(guest.name)
    usage = f"/srv/sterna/shared/{luks.id}.luks"
    host, other = fleet.lab.hosts[here], fleet.lab.hosts[fleet.other(here)]
    secrets.define(host, luks.id, "volume", usage, private=True)
    try:
        answer = fleet.start(guest.name, other.name)
        assert answer.status_code in (409, 422), answer.text
        (reason,) = answer.json()["reasons"]
        assert reason["code"] == "secret-not-carried"
        assert f"define it on {other.name}: virsh secret-define" in reason["fix"]
        secrets.define(other, luks.id, "volume", usage, private=True)  # as it says
        migration = fleet.started(guest.name, other.name)
        assert fleet.wait(migration)["status"] == "completed"
        fleet.wait_closed(migration)
    finally:
        for each in (host, other):
            secrets.undefine(each, luks.id)
            secrets.define(each, luks.id, "volume", usage)
