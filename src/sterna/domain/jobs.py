"""What keeps a guest from moving at this moment: jobs of libvirt and of QEMU, and why a guest is paused. Pure.

A copy beside such a job fails, or waits for it in vain. Each refusal names the job, its disk, and how it ends. A
guest that a job paused must not be resumed by hand: it runs on when the job ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sterna.domain.model import GuestState, Refusal, Vm

VM_JOB: Final = "vm-job-active"
"""Code: libvirt is at work on the whole guest, and lets nothing else be done with it."""
_NAMED = 3
_ABORT = "wait until it ends (virsh domjobinfo {vm}), or end it: virsh domjobabort {vm}"
_WAIT = "wait until it ends (virsh domjobinfo {vm})"
_OPERATIONS = {
    "start": ("being started", _WAIT),
    "save": ("being saved to a file, and will be off then", _ABORT),
    "restore": ("being restored from a file", _WAIT),
    "migration-in": ("still arriving in a migration", "wait until it has arrived"),
    "migration-out": ("in a migration that this agent did not start", _ABORT),
    "snapshot": ("part of a snapshot that is being taken", _ABORT),
    "snapshot-revert": ("being reverted to a snapshot", _WAIT),
    "snapshot-delete": ("losing a snapshot that is being deleted", _ABORT),
    "dump": ("being dumped to a file", f"{_ABORT} (libvirt cannot end a dump of memory only)"),
    "backup": (
        "being backed up",
        "wait until the backup ends (virsh domjobinfo {vm}), or end it: virsh domjobabort {vm}. "
        "A backup in pull mode ends only when its backup program, or this command, ends it",
    ),
}
_BLOCK_JOBS = {"pull": "block pull", "copy": "block copy", "commit": "block commit", "backup": "backup"}
_ACTIVE_COMMIT = "active-commit"
_PAUSED_BY_JOB = {
    "save": "to be saved to a file",
    "dump": "while it is dumped to a file",
    "snapshot": "while a snapshot is taken",
    "migration": "by a migration",
    "starting-up": "because it is being started",
    "postcopy": "by a migration in post-copy",
    "postcopy-failed": "by a migration in post-copy that broke",
}
_OTHER_PAUSES = {
    "ioerror": (
        "paused by an error of one of its disks",
        "see virsh domblkerror {vm}, repair the storage, then virsh resume {vm}",
    ),
    "watchdog": ("paused by its watchdog", "find out why the guest hung, then virsh resume {vm}"),
    "crashed": ("paused since it crashed", "virsh reset {vm}, or virsh destroy {vm} and start it again"),
    "pmsuspended": ("asleep (suspended to memory by itself)", "virsh dompmwakeup {vm}"),
    "from-snapshot": ("paused, as it was in the snapshot it was reverted to", "virsh resume {vm}"),
}


def job_refusal(vm: str, operation: str) -> Refusal:
    """A job of libvirt for the whole guest; `operation` as libvirt names it: `backup`, `dump`, ..."""
    what, fix = _OPERATIONS.get(operation, (f"in a job of libvirt ({operation})", _ABORT))
    return Refusal(code=VM_JOB, message=f"{vm} is {what}", fix=fix.format(vm=vm))


def busy_refusal(vm: str, words: str) -> Refusal:
    """libvirt does something to the guest that it does not name, and answers nothing else in that time."""
    fix = "wait until it ends; virsh domcontrol says since when, libvirtd's log may say what"
    return Refusal(code=VM_JOB, message=f"libvirt is busy with {vm}: {words}", fix=fix)


def disk_job_refusal(vm: str, disk: str, kind: str, *, ready: bool) -> Refusal:
    """A job of libvirt on one disk. `kind`: `pull`, `copy`, `commit`, `active-commit`, `backup`; `ready`: a copy or
    an active commit that waits to be ended."""
    name = "block commit" if kind == _ACTIVE_COMMIT else _BLOCK_JOBS.get(kind, f"job ({kind})")
    message = f"a {name} of disk {disk} of {vm} is under way"
    command = f"virsh blockjob {vm} {disk}"
    if kind == "backup":
        fix = f"wait until it ends, or end it: virsh domjobabort {vm}"
    elif kind in ("copy", _ACTIVE_COMMIT):
        waits = "it is ready and waits to be ended" if ready else "it does not end by itself"
        fix = f"{waits}: {command} --pivot keeps the result, {command} --abort drops it"
    else:
        fix = f"wait until it ends ({command} --info), or end it: {command} --abort"
    return Refusal(code="disk-job-active", message=message, fix=fix)


def foreign_job_refusal(vm: str, kind: str, job: str) -> Refusal:
    """A block job that was started in QEMU itself, past libvirt."""
    message = f"QEMU has a block job of {vm} that libvirt does not know: {kind} {job}"
    cancel = f'{{"execute":"block-job-cancel","arguments":{{"device":"{job}"}}}}'
    fix = f"let whoever started it end it, or: virsh qemu-monitor-command {vm} '{cancel}'"
    return Refusal(code="disk-job-active", message=message, fix=fix)


def snapshots_refusal(vm: str, names: Sequence[str]) -> Refusal:
    """libvirt migrates no VM that has snapshots."""
    some = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    message = (
        f"{vm} has {len(names)} snapshot{'s' if len(names) > 1 else ''} ({some}), and libvirt migrates none of them"
    )
    fix = (
        f"delete each: virsh snapshot-delete {vm} SNAPSHOT. With --metadata libvirt only forgets it: what it holds "
        "stays in the files it is made of, or in the disk's image, which is then not copied (disk-snapshots)"
    )
    return Refusal(code="vm-snapshots", message=message, fix=fix)


def blocked_refusal(vm: str, reason: str) -> Refusal:
    """QEMU's own reason against a migration of this guest."""
    if "format" in reason and "node" in reason:
        fix = "convert the disk to qcow2 or raw (qemu-img convert) while the VM is off"
    else:
        fix = "detach what QEMU names, or change it in the definition while the VM is off"
    return Refusal(code="qemu-blocks-migration", message=f"QEMU cannot migrate {vm}: {reason}", fix=fix)


def occupied(vm: Vm, against: Sequence[Refusal]) -> list[Refusal]:
    """All that keeps the guest here now: `against`, as its hypervisor says, and its state."""
    found = list(against)
    jobs = any(refusal.code == VM_JOB for refusal in found)
    for refusal in state_refusals(vm):
        if not jobs:
            found.append(refusal)
        elif refusal.code == "vm-paused":  # it was paused by something else as well
            found.append(refusal.model_copy(update={"fix": f"once that job has ended: {refusal.fix}"}))
    return found


def state_refusals(vm: Vm) -> list[Refusal]:
    """A guest that does not run cannot move; what would make it run depends on why it does not."""
    if vm.state is GuestState.RUNNING and vm.reason == "shutting-down":
        message = f"{vm.name} is shutting down"
        return [Refusal(code="vm-not-running", message=message, fix="wait until it is off, and start it again")]
    if vm.state is GuestState.RUNNING:
        return []
    if vm.state is GuestState.PAUSED and vm.reason in _OTHER_PAUSES:
        what, fix = _OTHER_PAUSES[vm.reason]
        return [Refusal(code="vm-paused", message=f"{vm.name} is {what}", fix=fix.format(vm=vm.name))]
    if vm.state is GuestState.PAUSED and vm.reason in _PAUSED_BY_JOB:
        message = f"{vm.name} is paused {_PAUSED_BY_JOB[vm.reason]}"
        fix = f"wait until that has ended (virsh domjobinfo {vm.name}); do not resume it before"
        return [Refusal(code=VM_JOB, message=message, fix=fix)]
    if vm.state is GuestState.PAUSED:
        return [Refusal(code="vm-paused", message=f"{vm.name} is paused", fix="resume it first")]
    return [Refusal(code="vm-not-running", message=f"{vm.name} is {vm.state}", fix="start it first")]
