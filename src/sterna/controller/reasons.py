"""The reasons a request can be refused for by the controller itself, each with what would fix it.

Agents add theirs; where both know the same (a VM under way, a destination down) the codes are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sterna.domain.durations import in_words
from sterna.domain.errors import Conflict, NotFound, Refused
from sterna.domain.journal import Migration
from sterna.domain.model import Refusal
from sterna.domain.plain_text import printable
from sterna.domain.trouble import Trouble

NO_SUCH_VM: Final = "no-such-vm"
NO_SUCH_HOST: Final = "no-such-host"
SAME_HOST: Final = "same-host"
DESTINATION_DOWN: Final = "destination-down"
MAINTENANCE: Final = "destination-in-maintenance"
UNDER_WAY: Final = "migration-under-way"
SOURCE_DOWN: Final = "source-down"
AMBIGUOUS: Final = "vm-name-ambiguous"
TWICE: Final = "vm-runs-twice"
NO_DESTINATION: Final = "no-destination"
DESTINATION_DEGRADED: Final = "destination-degraded"
SOURCE_DEGRADED: Final = "source-degraded"
NOVA_OWNED: Final = "nova-owned"
NOVA_SILENT: Final = "nova-silent"
COPY_UNWANTED: Final = "disk-copy-unwanted"
CHECK_FAILED: Final = "check-failed"
DEADLINE_MISSED: Final = "deadline-missed"
HOST_GONE: Final = "host-gone"
NO_OPEN_HOST: Final = "no-open-host"
NOTHING_TO_BRING_BACK: Final = "nothing-to-bring-back"
REBALANCE_OFF: Final = "rebalance-off"
WEBHOOK_NOT_ALLOWED: Final = "webhook-not-allowed"


class VmMissing(NotFound):
    """There is no such VM. Other reasons against the request are listed as well."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(r.message for r in refusals))
        self.refusals = tuple(refusals)


class VmBusy(Conflict):
    """The VM is in a migration already. Other reasons against the request are listed as well."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(r.message for r in refusals))
        self.refusals = tuple(refusals)


def no_such_vm(name: str, unasked: Sequence[str]) -> Refusal:
    """`unasked`: hosts that could not be asked, where it may be after all."""
    fix = "`sterna vms` lists them"
    if unasked:
        fix += f"; these hosts could not be asked: {', '.join(unasked)}"
    return Refusal(code=NO_SUCH_VM, message=f"there is no VM {name}", fix=fix)


def no_such_host(name: str) -> Refusal:
    """No agent of that name has ever sent a beacon."""
    fix = "`sterna hosts` lists them; start the Sterna agent there"
    return Refusal(code=NO_SUCH_HOST, message=f"there is no host {name}", fix=fix)


def network_host_shared(host: str, other: str) -> Refusal:
    """What a host calls itself in the cloud is another one's name there."""
    message = f"according to {host}, it has the same name in the cloud as {other}"
    fix = f"set the name of its network agent: `host` in `[openstack]` of the agent's settings on {host}"
    return Refusal(code="network-host-shared", message=message, fix=fix)


def same_host(vm: str, host: str) -> Refusal:
    """Destination = source."""
    return Refusal(
        code=SAME_HOST, message=f"{vm} is already on {host}", fix="name another host, or let Sterna choose one"
    )


def destination_down(host: str, trouble: Trouble) -> Refusal:
    """Its agent does not answer, or cannot describe it."""
    return Refusal(code=DESTINATION_DOWN, message=f"{host} is down: {trouble.why}", fix=trouble.fix)


def destination_degraded(host: str, trouble: Trouble) -> Refusal:
    """Its agent reports why it cannot take part."""
    message = f"{host} cannot accept VMs: {trouble.why}"
    return Refusal(code=DESTINATION_DEGRADED, message=message, fix=trouble.fix)


def source_degraded(vm: str, host: str, trouble: Trouble) -> Refusal:
    """Its agent reports why it cannot take part."""
    message = f"{host}, where {vm} is, cannot start a migration: {trouble.why}"
    return Refusal(code=SOURCE_DEGRADED, message=message, fix=trouble.fix)


def in_maintenance(host: str, reason: str = "") -> Refusal:
    """An operator wants no VMs there."""
    fix = f"`sterna host maintenance {host} --off`, or choose another host"
    why = f" ({reason})" if reason else ""
    return Refusal(code=MAINTENANCE, message=f"{host} is in maintenance{why}", fix=fix)


def under_way(vm: str, migration_id: str) -> Refusal:
    """One migration per VM at a time (invariant 5 of the protocol)."""
    fix = f"wait for it, or `sterna abort {migration_id}`"
    return Refusal(code=UNDER_WAY, message=f"{vm} is already in migration {migration_id}", fix=fix)


def source_down(vm: str, host: str, seen_at: str, trouble: Trouble) -> Refusal:
    """The VM was last seen on a host whose agent does not answer, or cannot describe it."""
    message = f"{vm} was last seen on {host} (at {seen_at or 'an unknown time'}), which is down: {trouble.why}"
    return Refusal(code=SOURCE_DOWN, message=message, fix=trouble.fix)


def ambiguous(name: str, uuids: Iterable[str]) -> Refusal:
    """Two VMs of one name."""
    message = f"several VMs have the name {name}: {', '.join(sorted(uuids))}"
    return Refusal(code=AMBIGUOUS, message=message, fix="give the UUID of the one you mean")


def runs_twice(vm: str, hosts: Iterable[str]) -> Refusal:
    """Invariant 1 is broken, by whomever."""
    message = f"{vm} runs on several hosts: {', '.join(sorted(hosts))}"
    fix = "identify the correct copy (`sterna show ID --timeline`), and end the other one (`virsh destroy`)"
    return Refusal(code=TWICE, message=message, fix=fix)


def nova_owned(vm: str, host: str) -> Refusal:
    """Moved behind its back, a later start through that Nova would make a second copy on the old host."""
    message = f"Nova manages {vm} on its host {host}: if Sterna migrated it, Nova could start a second copy there"
    fix = "migrate it with Nova (`openstack server migrate --live-migration`, in its region)"
    return Refusal(code=NOVA_OWNED, message=message, fix=fix)


def nova_silent(vm: str, why: str) -> Refusal:
    """It may be one of that Nova's."""
    message = f"{vm} was created by Nova, and it is unknown whether Nova still manages it: {why}"
    return Refusal(code=NOVA_SILENT, message=message, fix="check that this controller can reach Keystone and Nova")


def copy_unwanted(vm: str, disks: Iterable[str]) -> Refusal:
    """Somebody has said that no disk may be copied."""
    message = f"these disks of {vm} are only on its host, and the request forbids copying them: {', '.join(disks)}"
    fix = "allow copying them (--block-migration, or neither option), or put them on shared storage"
    return Refusal(code=COPY_UNWANTED, message=message, fix=fix)


def no_destination(vm: str) -> Refusal:
    """There is no other host."""
    return Refusal(
        code=NO_DESTINATION,
        message=f"there is no other host that {vm} could migrate to",
        fix="start a Sterna agent on one",
    )


def source_slow(vm: str, source: str, hosts: str, within_s: float) -> Refusal:
    """Asked about some hosts, it has answered about none."""
    message = (
        f"{source}, where {vm} runs, has not said within {within_s:g} s whether these hosts can run it: {hosts}"
    )
    fix = f"check that libvirt on {source} answers, and the VM's QEMU"
    return Refusal(code=CHECK_FAILED, message=message, fix=fix)


def hosts_slow(vm: str, hosts: str, within_s: float) -> Refusal:
    """Others have answered."""
    message = f"within {within_s:g} s it could not be determined whether these hosts can run {vm}: {hosts}"
    return Refusal(code=CHECK_FAILED, message=message, fix="check that libvirt and the storage answer there")


def hosts_unasked(vm: str, hosts: str, within_s: float) -> Refusal:
    """The time was over before."""
    message = f"within {within_s:g} s these hosts could not be asked whether they can run {vm}: {hosts}"
    return Refusal(code=CHECK_FAILED, message=message, fix="name one of them as the destination")


def deadline_missed(promised_s: float, late_s: float) -> Refusal:
    """An operation that would not end in time."""
    message = f"it will probably take {in_words(promised_s)}: {in_words(late_s)} more than allowed"
    return Refusal(code=DEADLINE_MISSED, message=message)


def deadline_with_vms_left(why: Sequence[str]) -> Refusal:
    """An operation that would end with VMs left, however much time it has."""
    others = f"; and {len(why) - 1} others" if len(why) > 1 else ""
    message = f"some VMs would stay on its hosts: {why[0]}{others}"
    fix = "`sterna drain --plan` lists all of them; fix the reasons, or start it anyway (--even-if-late)"
    return Refusal(code=DEADLINE_MISSED, message=message, fix=fix)


def host_gone(name: str, *, removed: bool) -> Refusal:
    """Nothing can be moved away from it."""
    what = "was removed from the fleet" if removed else "was declared dead"
    return Refusal(code=HOST_GONE, message=f"{name} {what}: its VMs cannot be migrated")


def gone_for_returns(name: str, *, removed: bool) -> Refusal:
    """Nothing can be brought back to it."""
    what = "was removed from the fleet" if removed else "was declared dead"
    return Refusal(code=HOST_GONE, message=f"{name} {what}: nothing can be brought back to it")


def nothing_to_bring_back(hosts: Sequence[str]) -> Refusal:
    """No VM was moved away from these hosts, or all are back."""
    message = (
        f"no operation that is recorded has moved a VM away from {', '.join(hosts)} that it has not brought back"
    )
    return Refusal(code=NOTHING_TO_BRING_BACK, message=message)


def rebalance_off() -> Refusal:
    """Nobody has switched it on."""
    return Refusal(
        code=REBALANCE_OFF, message="hosts are not rebalanced: that is off in this controller's settings"
    )


def no_open_host() -> Refusal:
    """All hosts would be closed."""
    return Refusal(
        code=NO_OPEN_HOST, message="no other host accepts VMs: all are in the request, in maintenance or dead"
    )


def webhook_not_allowed(url: str, why: str) -> Refusal:
    """It would make the controller call what its operator has not named."""
    return Refusal(code=WEBHOOK_NOT_ALLOWED, message=f"the webhook {printable(url)} is not called: {why}")


def unique(refusals: Iterable[Refusal]) -> list[Refusal]:
    """Each reason once, in the order in which they came."""
    return list({(r.code, r.message): r for r in refusals}.values())


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raise all reasons at once as the class that says it best: VmMissing, VmBusy, or Refused. None: return."""
    codes = {r.code for r in refusals}
    if NO_SUCH_VM in codes:
        raise VmMissing(refusals)
    if UNDER_WAY in codes:
        raise VmBusy(refusals)
    if refusals:
        raise Refused(refusals)


def other_request(migration_id: str) -> Conflict:
    """The id of a request was used for another one."""
    return Conflict(f"the ID {migration_id} belongs to another request", fix="choose a new ID")


def about(migration: Migration) -> dict[str, str]:
    """The fields of every log line about a migration. `host` is its source."""
    return {"migration": migration.id, "vm": migration.vm_name, "host": migration.source}
