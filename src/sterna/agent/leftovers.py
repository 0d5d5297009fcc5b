"""Each kind of leftover on one host: how it is found, and how it is removed. Called by `agent/audit.py`.

A finder only reads. What it finds is looked for again right before it is removed, by the same finder.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime

from sterna.agent.audit_context import AuditContext, Found, each, later
from sterna.agent.unhandled_messages import bad_messages, set_aside
from sterna.domain.audit import (
    Safety,
    judge_definition,
    judge_files,
    judge_folder,
    judge_incoming,
    off,
)
from sterna.domain.entries.base import Failed, StatusSet
from sterna.domain.entries.destination import (
    ResourcesUpdated,
    TargetsMade,
    TargetsRemoved,
    TargetsToMake,
    VolumesToAttach,
)
from sterna.domain.entries.destination_notes import Abandoned, TargetsReserved
from sterna.domain.entries.notes import Waiting
from sterna.domain.entries.source import FilesToRemove, SourceProven, TokensToLeave, VmRemoved
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.files import Created, same_file
from sterna.domain.hosts import VmSummary
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.model import Disk, GuestState, Nic
from sterna.domain.plugs import tap_name
from sterna.domain.whereabouts import SAVED
from sterna.migration.secrets import counted_on

LONG_S = 600.0
"""An open migration is worth a line when nothing was written about it for this long."""


async def taps(audit: AuditContext) -> list[Found]:
    """Ports Sterna created for a guest that has no QEMU here. The agent removes them by itself in a while."""
    return await each(audit, "taps", await audit.host.vif.made_ahead(), _device, _tap)


def _device(nic: Nic) -> str:
    return nic.device or tap_name(nic)


async def _tap(audit: AuditContext, nic: Nic) -> list[Found]:
    device, vm = _device(nic), nic.external_ids.get("vm-uuid", "")
    if not vm:
        why = "created by Sterna, but the VM is unknown"
        return [Found(audit.leftover("tap", device, why, Safety.CANNOT_TELL))]
    here = await audit.host.hypervisor.observe(vm)
    startable = here.state is GuestState.SHUTOFF  # then only the tap is too much
    needed = startable and (nic.device is None or here.reason == SAVED)
    if not off(here) or vm in audit.moving or needed:
        return []
    why = "created for a guest that has no QEMU here"
    words = {"vm": vm, "repair": f"remove {device} from {nic.bridge} and delete it"}
    unplug = later(audit.host.vif.unplug, nic, for_good=not startable)
    return [Found(audit.leftover("tap", device, why, Safety.SAFE, **words), unplug)]


async def incoming_guests(audit: AuditContext) -> list[Found]:
    """Guests that wait for their memory although no migration is under way."""
    paused = [vm for vm in await audit.host.hypervisor.vms() if vm.state is GuestState.PAUSED]
    return await each(audit, "incoming guests", paused, _name, _incoming)


def _name(vm: VmSummary) -> str:
    return vm.name


async def _incoming(audit: AuditContext, vm: VmSummary) -> list[Found]:
    hypervisor = audit.host.hypervisor
    here = await hypervisor.observe(vm.uuid)
    if here.epoch is None or here.ran or vm.uuid in audit.moving:
        return []
    judged = judge_incoming(here, await audit.elsewhere(vm.uuid))
    if judged is None or vm.uuid in audit.moving:
        return []
    words = {"vm": vm.uuid, "repair": judged.helps or "end it; it never ran"}
    end = later(hypervisor.end_incoming, vm.uuid, here.epoch)
    return [Found(audit.leftover("incoming-guest", vm.name, judged.why, judged.safety, **words), end)]


async def definitions(audit: AuditContext) -> list[Found]:
    """Definitions a move left behind."""
    stopped = [vm for vm in await audit.host.hypervisor.vms() if vm.state is GuestState.SHUTOFF]
    return await each(audit, "definitions", stopped, _name, _definition)


async def _definition(audit: AuditContext, vm: VmSummary) -> list[Found]:
    hypervisor = audit.host.hypervisor
    here = await hypervisor.observe(vm.uuid)
    if here.epoch is None or vm.uuid in audit.moving:
        return []
    elsewhere = await audit.elsewhere(vm.uuid)
    judged = judge_definition(here, elsewhere)
    if judged is not None and judged.safety is Safety.SAFE and _stays(audit, vm.uuid):
        judged = judge_definition(here, elsewhere, stays=True)
    if judged is None or vm.uuid in audit.moving:
        return []
    words = {"vm": vm.uuid, "repair": judged.helps or "undefine it; its disks are not touched"}
    undefine = later(hypervisor.undefine, vm.uuid, here.epoch)
    return [Found(audit.leftover("definition", vm.name, judged.why, judged.safety, **words), undefine)]


def _stays(audit: AuditContext, vm: str) -> bool:
    """Has the last migration of that VM left it here, as far as this host's journal goes back?"""
    last, stays = 0, False
    for kind in (ResourcesUpdated, SourceProven, VmRemoved, TargetsRemoved, Abandoned):
        for entry in audit.journal.settled(kind.entry):
            known = audit.journal.get(entry.migration_id) if entry.kind is kind.kind else None
            if known is not None and known[0].vm_uuid == vm and entry.seq > last:
                last, stays = entry.seq, kind in (ResourcesUpdated, SourceProven)
    return stays


async def secrets(audit: AuditContext) -> list[Found]:
    """Secrets of libvirt that Sterna made here, for a VM that was deleted or moved while another one used them."""
    found, hypervisor = [], audit.host.hypervisor
    for secret in await hypervisor.unused_secrets():
        vm = secret.made_for
        if vm not in audit.moving and not counted_on(audit.journal, secret):
            why = f"created by Sterna for a VM's disk ({secret.kind} {secret.usage}); no VM here refers to it"
            words = {"vm": vm, "repair": "undefine it"}
            remove = later(hypervisor.remove_secret, secret.uuid, vm)
            found.append(Found(audit.leftover("secret", secret.uuid, why, Safety.SAFE, **words), remove))
    return found


async def files(audit: AuditContext) -> list[Found]:
    """Directories and disks that P8 made here and no R7 removed: of halves that were given up, not undone."""
    undone = {e.migration_id for e in audit.journal.settled(TargetsRemoved.entry) if e.kind is Kind.DONE}
    arrived = {e.migration_id for e in audit.journal.settled(ResourcesUpdated.entry) if e.kind is Kind.DONE}
    made = audit.journal.settled(TargetsToMake.entry)
    over = [e for e in made if e.kind is Kind.INTENT and e.migration_id not in undone | arrived]
    return await each(audit, "files", over, _made, _given_up)


def _made(entry: Entry) -> str:
    created = TargetsToMake.read(entry)
    return ", ".join(created.files or created.directories)


async def _given_up(audit: AuditContext, entry: Entry) -> list[Found]:
    made = TargetsToMake.read(entry)
    known = audit.journal.get(entry.migration_id)
    vm = known[0].vm_uuid if known else ""
    storage = audit.host.storage
    present = [path for path in made.files if await _is_as_made(audit, entry.migration_id, path)]
    there = await storage.directories_of(vm)
    folders = [d for d in made.directories if d in there and await storage.is_empty(d)]
    if not present and not folders:
        return []
    if vm in {v.uuid for v in await audit.host.hypervisor.vms()} or vm in audit.moving:
        return []  # a guest of this UUID is here: they are its own
    if await storage.used_by(tuple(present), await audit.host.hypervisor.claims(), locks=True, perhaps=True):
        return []  # something uses them by now, or may
    elsewhere = await audit.elsewhere(vm)
    judged = judge_files(elsewhere)
    if judged.safety is Safety.SAFE:
        host = next(iter(elsewhere.running))
        for path in present:
            if await _shared(audit, host, path):
                return []  # the running guest's own
    subject = ", ".join(present or folders)
    words = {"vm": vm, "repair": judged.helps or "remove them, and directories that are then empty"}
    remove = later(storage.remove, Created(directories=made.directories, files=tuple(present)))
    return [Found(audit.leftover("files", subject, judged.why, judged.safety, **words), remove)]


async def _is_as_made(audit: AuditContext, migration: str, path: str) -> bool:
    """Is it there, and nothing that somebody else has put in its place?"""
    if not await audit.host.storage.readable(path):
        return False
    made = (kind.of(entry) for entry in audit.journal.entries(migration) for kind in (TargetsReserved, TargetsMade))
    known = {path: identity for each in made if each for path, identity in each.identities.items()}.get(path)
    found = await audit.host.storage.identity(path)
    return known is None or (found is not None and same_file(known, found))


async def kept_files(audit: AuditContext) -> list[Found]:
    """What F10 and R7 kept, since it was in use or nothing could be proven. A person decides."""
    here = {vm.uuid for vm in await audit.host.hypervisor.vms()}
    left: dict[str, tuple[str, str]] = {}
    for outcome in (VmRemoved, TargetsRemoved):
        for entry in audit.journal.settled(outcome.entry):
            known = audit.journal.get(entry.migration_id)
            vm = known[0].vm_uuid if known else ""
            done = outcome.of(entry) if vm not in here | audit.moving else None
            kept = (done and done.kept) or {}
            left |= {path: (vm, reason) for path, reason in kept.items()}

    async def look(audit: AuditContext, path: str) -> list[Found]:
        if await audit.host.storage.identity(path) is None:
            return []
        vm, reason = left[path]
        words = {"vm": vm, "repair": "remove it manually, if nothing needs it"}
        why = f"left when the VM went: {reason}"
        return [Found(audit.leftover("files", path, why, Safety.NEVER, **words))]

    return await each(audit, "kept files", left, str, look)


async def folders(audit: AuditContext) -> list[Found]:
    """Empty instance directories that P8 made, or that F10 found, of VMs that are not here any more."""
    here = {vm.uuid for vm in await audit.host.hypervisor.vms()}
    made: dict[str, str] = {}
    for plan in (TargetsToMake, FilesToRemove):
        for entry in audit.journal.settled(plan.entry):
            intent, known = plan.of(entry), audit.journal.get(entry.migration_id)
            if intent is not None and known is not None:
                made |= dict.fromkeys(intent.directories, known[0].vm_uuid)

    async def look(audit: AuditContext, path: str) -> list[Found]:
        vm = made[path]
        if vm in here or vm in audit.moving or not await audit.host.storage.is_empty(path):
            return []
        judged = judge_folder(await audit.elsewhere(vm), shared=await _seen_by(audit, vm, path))
        if judged is None or vm in audit.moving:
            return []
        words = {"vm": vm, "repair": judged.helps or "remove it, if it is still empty"}
        remove = later(audit.host.storage.remove, Created(directories=(path,)))
        return [Found(audit.leftover("folder", path, judged.why, judged.safety, **words), remove)]

    return await each(audit, "folders", sorted(made), str, look)


async def _seen_by(audit: AuditContext, vm: str, path: str) -> bool:
    """Does a host that has the VM see this folder as well? One that cannot say is taken to see it."""
    for host, seen in (await audit.elsewhere(vm)).seen.items():
        if seen.state is not GuestState.ABSENT:
            try:
                if await _shared(audit, host, path):
                    return True
            except SternaError:
                return True
    return False


async def _shared(audit: AuditContext, host: str, path: str) -> bool:
    with audit.tokens.fresh() as token:  # each look its own: others may be beside it
        try:
            await audit.host.storage.leave_token(path, token)
            return await audit.sees(host, path, token)
        finally:
            await audit.host.storage.drop_token(path, token)


async def admissions(audit: AuditContext) -> list[Found]:
    """Volumes that still admit this host for a migration that is over, and that no guest here uses."""
    asked: dict[str, tuple[Disk, str]] = {}
    for entry in audit.journal.settled(VolumesToAttach.entry):
        intent, known = VolumesToAttach.of(entry), audit.journal.get(entry.migration_id)
        if intent is not None and known is not None:
            asked |= {_volume(disk): (disk, known[0].vm_uuid) for disk in intent.disks}
    used: asyncio.Task[set[str]] | None = None

    async def look(audit: AuditContext, volume: str) -> list[Found]:
        nonlocal used
        disk, vm = asked[volume]
        adapter = audit.host.volumes_for(disk)
        if not await adapter.admitted(disk):
            return []
        if used is None:
            used = asyncio.create_task(_volumes_in_use(audit))  # asked once, also where that fails
        if volume in await asyncio.shield(used) or vm in audit.moving:  # one look that ends ends no other
            return []
        why = "access was given for a migration that has ended; no guest here, running or off, uses it"
        words = {"vm": vm, "repair": "revoke this host's access"}
        detach = later(adapter.detach, disk)
        return [Found(audit.leftover("admission", volume, why, Safety.SAFE, **words), detach)]

    try:
        return await each(audit, "admissions", asked, str, look)
    finally:
        if used is not None:
            used.cancel()


def _volume(disk: Disk) -> str:
    if disk.rbd is not None:
        return disk.rbd.name
    return disk.iscsi.target if disk.iscsi is not None else disk.path or disk.target


async def _volumes_in_use(audit: AuditContext) -> set[str]:
    used: set[str] = set()
    for summary in await audit.host.hypervisor.vms():
        with suppress(NotFound):  # gone by now
            vm = await audit.host.hypervisor.vm(summary.uuid)
            used |= {_volume(disk) for disk in vm.disks}
    return used


async def tokens(audit: AuditContext) -> list[Found]:
    """Tokens of the sharing test that this host left beside a disk."""
    intents = (TokensToLeave.of(e) for e in audit.journal.settled(TokensToLeave.entry))
    paths = {path for intent in intents if intent for path in intent.paths}

    async def note_paths(audit: AuditContext, summary: VmSummary) -> list[Found]:
        with suppress(NotFound):  # gone by now
            vm = await audit.host.hypervisor.vm(summary.uuid)
            paths.update(path for d in vm.disks for path in d.files)
        return []

    silent = await each(audit, "tokens", await audit.host.hypervisor.vms(), _name, note_paths)
    beside = await each(audit, "tokens", sorted(paths), str, _tokens_beside)
    return [*silent, *{one.leftover.subject: one for one in beside}.values()]


async def _tokens_beside(audit: AuditContext, path: str) -> list[Found]:
    found = []
    for token in await audit.host.storage.tokens(path):
        if _over(audit, token):
            place = f"{path.rpartition('/')[0]}/.sterna-{token}"
            why = "left by a finished test for shared storage"
            drop = later(audit.host.storage.drop_token, path, token)
            leftover = audit.leftover("token", place, why, Safety.SAFE, repair="remove the file")
            found.append(Found(leftover, drop))
    return found


def _over(audit: AuditContext, token: str) -> bool:
    """Only this host's own: another host may be using its own right now."""
    if audit.tokens.is_left_over(token):
        return True
    migration_id, _, role = token.rpartition("-")
    known = audit.journal.get(migration_id)
    closed = known is not None and migration_id not in {m.id for m, _ in audit.journal.open()}
    return known is not None and closed and role == known[1]


async def waiting(audit: AuditContext) -> list[Found]:
    """No leftovers: migrations that have been quiet for long, and casts that wait for their host."""
    found, now = [], audit.host.clock.now()
    for migration, role in audit.journal.open():
        entries = audit.journal.entries(migration.id)
        quiet_s = (now - datetime.fromisoformat(entries[-1].at)).total_seconds() if entries else 0.0
        if quiet_s > LONG_S:
            why = f"{_last_reason(entries)}; nothing new for {quiet_s / 60:.0f} min"
            other = migration.destination if role is Role.SOURCE else migration.source
            words = {"vm": migration.vm_uuid, "repair": f"see to {other}; if it is permanently gone: declare-dead"}
            found.append(Found(audit.leftover("migration", migration.id, why, Safety.WAITING, **words)))
    for envelope in audit.journal.outbox():
        why = f"{envelope.method} of migration {envelope.migration_id} waits until {envelope.to} is back"
        if reason := audit.messages.refused.get(envelope.id):
            why = f"{envelope.method} of migration {envelope.migration_id} is refused by {envelope.to}: {reason}"
        found.append(Found(audit.leftover("cast", envelope.id, why, Safety.WAITING)))
    return found


def _last_reason(entries: list[Entry]) -> str:
    for entry in reversed(entries):
        if (waiting := Waiting.of(entry)) and waiting.why:
            return waiting.why
        if entry.kind is Kind.FAILED:
            return Failed.read(entry).error.message or entry.name
        if entry.kind is Kind.STATUS:
            last = StatusSet.read(entry)
            return f"{last.status}: {last.reason}"
    return "open"


FINDERS = (
    taps,
    incoming_guests,
    definitions,
    secrets,
    files,
    folders,
    kept_files,
    admissions,
    tokens,
    waiting,
    set_aside,
    bad_messages,
)
"""In the order in which they are repaired: a definition goes before the disks that are then unused."""
