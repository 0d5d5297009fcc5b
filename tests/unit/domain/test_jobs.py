"""What keeps a guest where it is: each reason names the job; what a job paused is not to be resumed."""

import pytest

from sterna.domain.jobs import (
    blocked_refusal,
    disk_job_refusal,
    job_refusal,
    occupied,
    snapshots_refusal,
    state_refusals,
)
from sterna.domain.model import GuestState, Vm


def vm(state: GuestState, reason: str = "") -> Vm:
    return Vm(uuid="u", name="tern", state=state, reason=reason, memory_bytes=1, vcpus=1)


def test_a_guest_that_runs_has_nothing_against_it() -> None:
    assert state_refusals(vm(GuestState.RUNNING, "booted")) == []
    assert occupied(vm(GuestState.RUNNING), []) == []


@pytest.mark.parametrize(
    "reason", ["dump", "save", "snapshot", "migration", "starting-up", "postcopy", "postcopy-failed"]
)
def test_nobody_is_told_to_resume_a_guest_that_a_job_paused(reason: str) -> None:
    (found,) = state_refusals(vm(GuestState.PAUSED, reason))
    assert found.code == "vm-job-active"
    assert "do not resume" in found.fix


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("user", "resume it first"),
        ("ioerror", "domblkerror tern"),
        ("watchdog", "virsh resume tern"),
        ("crashed", "virsh reset tern"),
        ("pmsuspended", "virsh dompmwakeup tern"),
    ],
)
def test_what_wakes_a_guest_depends_on_what_stopped_it(reason: str, fix: str) -> None:
    (found,) = state_refusals(vm(GuestState.PAUSED, reason))
    assert found.code == "vm-paused"
    assert fix in found.fix


def test_a_job_and_its_pause_are_one_reason() -> None:
    found = occupied(vm(GuestState.PAUSED, "dump"), [job_refusal("tern", "dump")])
    assert [r.code for r in found] == ["vm-job-active"]
    assert "dump" in found[0].message
    assert "domjobabort tern" in found[0].fix


def test_a_pause_by_a_person_beside_a_job_is_a_reason_of_its_own() -> None:
    found = occupied(vm(GuestState.PAUSED, "user"), [job_refusal("tern", "backup")])
    assert [r.code for r in found] == ["vm-job-active", "vm-paused"]
    assert found[1].fix.startswith("once that job has ended")


@pytest.mark.parametrize(
    ("kind", "ready", "fix"),
    [
        ("copy", True, "--pivot"),
        ("copy", False, "does not end by itself"),
        ("active-commit", True, "--pivot"),
        ("commit", False, "wait until it ends"),
        ("pull", False, "virsh blockjob tern vda --abort"),
        ("backup", False, "domjobabort"),
    ],
)
def test_a_disks_job_says_how_it_ends(kind: str, ready: bool, fix: str) -> None:
    found = disk_job_refusal("tern", "vda", kind, ready=ready)
    assert found.code == "disk-job-active"
    assert "vda" in found.message
    assert fix in found.fix


def test_an_operation_of_a_newer_libvirt_is_named_as_it_names_it() -> None:
    found = job_refusal("tern", "teleport")
    assert "teleport" in found.message
    assert found.fix


def test_snapshots_are_named_with_the_command_that_deletes_them() -> None:
    found = snapshots_refusal("tern", ["a", "b", "c", "d"])
    assert (found.code, "4 snapshots (a, b, c, ...)" in found.message) == ("vm-snapshots", True)
    assert "virsh snapshot-delete tern" in found.fix


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("The vmdk format used by node 'disk' does not support live migration", "qemu-img convert"),
        ("State blocked by non-migratable device '0000:00:05.0/nvme'", "detach what QEMU names"),
    ],
)
def test_what_qemu_has_against_a_migration_is_said_in_its_words(reason: str, fix: str) -> None:
    found = blocked_refusal("tern", reason)
    assert found.code == "qemu-blocks-migration"
    assert reason in found.message and fix in found.fix
