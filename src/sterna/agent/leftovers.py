"""Each kind of leftover on one host: how it is found, and how it is removed. Called by `agent/audit.py`.

A finder only reads. What it finds is looked for again right before it is removed, by the same finder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sterna.agent.tokens import CheckTokens
from sterna.domain.audit import (
    Elsewhere,
    Leftover,
    Safety,
    judge_definition,
    judge_files,
    judge_folder,
    judge_incoming,
    off,
)
from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.model import Disk, GuestState, Observation
from sterna.domain.plugs import tap_name
from sterna.domain.whereabouts import SAVED
from sterna.migration.context import HostPorts
from sterna.migration.secrets import counted_on
from sterna.ports.records import Journal
from sterna.ports.storage import Created
from sterna.rpc.client import RpcClient

ASK_S = 5.0
"""How long one silent host may hold up the question, in seconds."""
LONG_S = 600.0
"""An open migration is worth a line when nothing was written about it for this long."""

Act = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Found:
    """A leftover, and what removes it."""

    leftover: Leftover
    act: Act | None = None


@dataclass(frozen=True)
class Surroundings:
    """One host, its journal, and the other hosts it can ask."""

    host: HostPorts
    journal: Journal
    client: RpcClient
    tokens: CheckTokens
    others: tuple[str, ...]
    silent: tuple[str, ...]
    """Hosts known to be down: not asked."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Casts that nobody tries again for now, by id, and why."""

    @property
    def moving(self) -> set[str]:
        """VMs in an open migration here: what they have is that migration's. Read it after the world."""
        return {migration.vm_uuid for migration, _ in self.journal.open()}

    async def elsewhere(self, vm: str) -> Elsewhere:
        """What all other hosts say of that guest, now."""
        answers = await asyncio.gather(*(self._ask(name, vm) for name in self.others))
        answered = zip(self.others, answers, strict=True)
        seen = {n: o for n, o in answered if o is not None and o.state is not GuestState.UNKNOWN}
        return Elsewhere(seen, tuple(sorted({*self.silent, *(set(self.others) - set(seen))})))

    async def sees(self, host: str, path: str, token: str) -> bool:
        """Does that host see the token? Raises Unreachable or Unknown."""
        answer = await self.client.call(host, "sees_token", {"path": path, "token": token}, silence_s=ASK_S)
        return bool(answer["seen"])

    def leftover(self, kind: str, subject: str, why: str, safety: Safety, **more: str) -> Leftover:
        """One of this host's."""
        return Leftover(kind=kind, host=self.host.name, subject=subject, why=why, safety=safety, **more)

    async def _ask(self, host: str, vm: str) -> Observation | None:
        try:
            answer = await self.client.call(host, "observe_guest", {"vm": vm}, silence_s=ASK_S)
        except SternaError:
            return None
        return Observation.model_validate(answer["observation"])


Finder = Callable[[Surroundings], Awaitable[list[Found]]]


async def taps(around: Surroundings) -> list[Found]:
    """Ports Sterna made ahead of a guest that has no QEMU here. The agent removes them by itself in a while."""
    found = []
    for nic in await around.host.vif.made_ahead():
        device, vm = nic.device or tap_name(nic), nic.external_ids.get("vm-uuid", "")
        if not vm:
            why = "made by Sterna, but it does not say for which VM"
            found.append(Found(around.leftover("tap", device, why, Safety.CANNOT_TELL)))
            continue
        here = await around.host.hypervisor.observe(vm)
        startable = here.state is GuestState.SHUTOFF  # then only the tap is too much
        needed = startable and (nic.device is None or here.reason == SAVED)
        if off(here) and vm not in around.moving and not needed:
            why = "made ahead of a guest that has no QEMU here"
            words = {"vm": vm, "repair": f"take {device} off {nic.bridge} and delete it"}
            unplug = _later(around.host.vif.unplug, nic, for_good=not startable)
            found.append(Found(around.leftover("tap", device, why, Safety.SAFE, **words), unplug))
    return found


async def incoming_guests(around: Surroundings) -> list[Found]:
    """Guests that wait for their memory although no migration is under way."""
    found, hypervisor = [], around.host.hypervisor
    for vm in await hypervisor.vms():
        if vm.state is not GuestState.PAUSED:
            continue
        here = await hypervisor.observe(vm.uuid)
        if here.epoch is None or here.ran or vm.uuid in around.moving:
            continue
        judged = judge_incoming(here, await around.elsewhere(vm.uuid))
        if judged is not None and vm.uuid not in around.moving:
            words = {"vm": vm.uuid, "repair": judged.helps or "end it; it never ran"}
            end = _later(hypervisor.end_incoming, vm.uuid, here.epoch)
            found.append(Found(around.leftover("incoming-guest", vm.name, judged.why, judged.safety, **words), end))
    return found


async def definitions(around: Surroundings) -> list[Found]:
    """Definitions a move left behind."""
    found, hypervisor = [], around.host.hypervisor
    for vm in await hypervisor.vms():
        if vm.state is not GuestState.SHUTOFF:
            continue
        here = await hypervisor.observe(vm.uuid)
        if here.epoch is None or vm.uuid in around.moving:
            continue
        judged = judge_definition(here, await around.elsewhere(vm.uuid))
        if judged is not None and vm.uuid not in around.moving:
            words = {"vm": vm.uuid, "repair": judged.helps or "undefine it; its disks are left alone"}
            undefine = _later(hypervisor.undefine, vm.uuid, here.epoch)
            found.append(
                Found(around.leftover("definition", vm.name, judged.why, judged.safety, **words), undefine)
            )
    return found


async def secrets(around: Surroundings) -> list[Found]:
    """Secrets of libvirt that Sterna made here, for a VM that was deleted or moved while another one used them."""
    found, hypervisor = [], around.host.hypervisor
    for secret in await hypervisor.unused_secrets():
        vm = secret.made_for
        if vm not in around.moving and not counted_on(around.journal, secret):
            why = f"made by Sterna for a VM's disk ({secret.kind} {secret.usage}); no VM here refers to it"
            words = {"vm": vm, "repair": "undefine it"}
            remove = _later(hypervisor.remove_secret, secret.uuid, vm)
            found.append(Found(around.leftover("secret", secret.uuid, why, Safety.SAFE, **words), remove))
    return found


async def files(around: Surroundings) -> list[Found]:
    """Directories and disks that P8 made here and no R7 removed: of halves that were given up, not undone."""
    undone = {e.migration_id for e in around.journal.settled("remove-instance-directory") if e.kind is Kind.DONE}
    arrived = {e.migration_id for e in around.journal.settled("update-resources") if e.kind is Kind.DONE}
    found = []
    for entry in around.journal.settled("create-instance-directory"):
        over = entry.kind is Kind.INTENT and entry.migration_id not in undone | arrived
        if over and (one := await _given_up(around, entry)) is not None:
            found.append(one)
    return found


async def _given_up(around: Surroundings, entry: Entry) -> Found | None:
    made = Created.model_validate(entry.data)
    known = around.journal.get(entry.migration_id)
    vm = known[0].vm_uuid if known else ""
    storage = around.host.storage
    present = [path for path in made.files if await storage.readable(path)]
    folders = [d for d in made.directories if d in await storage.directories_of(vm)]
    if not present and not folders:
        return None
    if vm in {v.uuid for v in await around.host.hypervisor.vms()} or vm in around.moving:
        return None  # a guest of this UUID is here: they are its own
    if await storage.used_by(tuple(present), await around.host.hypervisor.claims(), locks=True):
        return None  # somebody has come to use them
    elsewhere = await around.elsewhere(vm)
    judged = judge_files(elsewhere)
    if judged.safety is Safety.SAFE:
        host = next(iter(elsewhere.running))
        for path in present:
            if await _shared(around, host, path):
                return None  # the running guest's own
    subject = ", ".join(present or folders)
    words = {"vm": vm, "repair": judged.helps or "remove them, and the directories that are empty then"}
    return Found(
        around.leftover("files", subject, judged.why, judged.safety, **words), _later(storage.remove, made)
    )


async def kept_files(around: Surroundings) -> list[Found]:
    """What F10 and R7 left alone, since somebody else needed it or nothing could be proven. A person decides."""
    here = {vm.uuid for vm in await around.host.hypervisor.vms()}
    found: dict[str, Found] = {}
    for step in ("remove-vm-at-source", "remove-instance-directory"):
        for entry in around.journal.settled(step):
            known = around.journal.get(entry.migration_id)
            vm = known[0].vm_uuid if known else ""
            kept = entry.data.get("kept", {}) if entry.kind is Kind.DONE and vm not in here | around.moving else {}
            for path, reason in kept.items():
                if await around.host.storage.identity(path) is not None:
                    why = f"left when the VM went: {reason}"
                    words = {"vm": vm, "repair": "remove it by hand, if nobody needs it"}
                    found[path] = Found(around.leftover("files", path, why, Safety.NEVER, **words))
    return list(found.values())


async def folders(around: Surroundings) -> list[Found]:
    """Empty instance directories that P8 made, or that F10 found, of VMs that are not here any more."""
    here = {vm.uuid for vm in await around.host.hypervisor.vms()}
    made: dict[str, str] = {}
    for step in ("create-instance-directory", "remove-vm-at-source"):
        for entry in around.journal.settled(step):
            if (known := around.journal.get(entry.migration_id)) is not None:
                made |= dict.fromkeys(entry.data.get("directories", ()), known[0].vm_uuid)
    found = []
    for path, vm in sorted(made.items()):
        if vm in here or vm in around.moving or not await around.host.storage.is_empty(path):
            continue
        judged = judge_folder(await around.elsewhere(vm), shared=await _seen_by(around, vm, path))
        if judged is not None and vm not in around.moving:
            words = {"vm": vm, "repair": judged.helps or "remove it, if it is still empty"}
            remove = _later(around.host.storage.remove, Created(directories=(path,)))
            found.append(Found(around.leftover("folder", path, judged.why, judged.safety, **words), remove))
    return found


async def _seen_by(around: Surroundings, vm: str, path: str) -> bool:
    """Does a host that has the VM see this folder as well? One that cannot say is taken to see it."""
    for host, seen in (await around.elsewhere(vm)).seen.items():
        if seen.state is not GuestState.ABSENT:
            try:
                if await _shared(around, host, path):
                    return True
            except SternaError:
                return True
    return False


async def _shared(around: Surroundings, host: str, path: str) -> bool:
    token = f"audit-{around.host.name}"[:64].replace("_", "-")
    await around.host.storage.leave_token(path, token)
    try:
        return await around.sees(host, path, token)
    finally:
        await around.host.storage.drop_token(path, token)


async def admissions(around: Surroundings) -> list[Found]:
    """Volumes that still admit this host for a migration that is over, and that no guest here uses."""
    asked: dict[str, tuple[Disk, str]] = {}
    for entry in around.journal.settled("attach-volumes"):
        known = around.journal.get(entry.migration_id)
        if entry.kind is Kind.INTENT and known is not None:
            for raw in entry.data.get("disks", ()):
                disk = Disk.model_validate(raw)
                asked[_volume(disk)] = disk, known[0].vm_uuid
    used: set[str] | None = None
    found = []
    for volume, (disk, vm) in asked.items():
        adapter = around.host.volumes_for(disk)
        if not await adapter.admitted(disk):
            continue
        if used is None:
            used = await _volumes_in_use(around)
        if volume not in used and vm not in around.moving:
            why = "admitted for a migration that is over; no guest here, running or off, uses it"
            words = {"vm": vm, "repair": "withdraw this host's admission"}
            detach = _later(adapter.detach, disk)
            found.append(Found(around.leftover("admission", volume, why, Safety.SAFE, **words), detach))
    return found


def _volume(disk: Disk) -> str:
    if disk.rbd is not None:
        return disk.rbd.name
    return disk.iscsi.target if disk.iscsi is not None else disk.path or disk.target


async def _volumes_in_use(around: Surroundings) -> set[str]:
    hypervisor = around.host.hypervisor
    vms = [await hypervisor.vm(summary.uuid) for summary in await hypervisor.vms()]
    return {_volume(disk) for vm in vms for disk in vm.disks}


async def tokens(around: Surroundings) -> list[Found]:
    """Tokens of the sharing test that this host left beside a disk."""
    paths = {p for e in around.journal.settled("snapshot-volumes") for p in e.data.get("paths", ())}
    hypervisor = around.host.hypervisor
    for summary in await hypervisor.vms():
        paths |= {path for d in (await hypervisor.vm(summary.uuid)).disks for path in d.files}
    found: dict[str, Found] = {}
    for path in sorted(paths):
        for token in await around.host.storage.tokens(path):
            place = f"{path.rpartition('/')[0]}/.sterna-{token}"
            if _over(around, token):
                why = "left by a test whether the folder is shared, which is over"
                drop = _later(around.host.storage.drop_token, path, token)
                found[place] = Found(
                    around.leftover("token", place, why, Safety.SAFE, repair="remove the file"), drop
                )
    return list(found.values())


def _over(around: Surroundings, token: str) -> bool:
    """Only this host's own: another host may be using its own right now."""
    if around.tokens.is_left_over(token):
        return True
    migration_id, _, role = token.rpartition("-")
    known = around.journal.get(migration_id)
    closed = known is not None and migration_id not in {m.id for m, _ in around.journal.open()}
    return known is not None and closed and role == known[1]


async def waiting(around: Surroundings) -> list[Found]:
    """No leftovers: migrations that have been quiet for long, and casts that wait for their host."""
    found, now = [], around.host.clock.now()
    for migration, role in around.journal.open():
        entries = around.journal.entries(migration.id)
        quiet_s = (now - datetime.fromisoformat(entries[-1].at)).total_seconds() if entries else 0.0
        if quiet_s > LONG_S:
            why = f"{_says(entries)}; nothing new for {quiet_s / 60:.0f} min"
            other = migration.destination if role is Role.SOURCE else migration.source
            words = {"vm": migration.vm_uuid, "repair": f"see to {other}; if it is gone for good: declare-dead"}
            found.append(Found(around.leftover("migration", migration.id, why, Safety.WAITING, **words)))
    for envelope in around.journal.inbox():
        if reason := around.set_aside.get(envelope.id):
            sent = f"{envelope.method} of migration {envelope.migration_id}, sent by {envelope.sender}"
            why = f"{sent}, is set aside: {reason}"
            repair = "see the agent's log; it is tried once more when the agent is restarted"
            found.append(Found(around.leftover("cast", envelope.id, why, Safety.WAITING, repair=repair)))
    for envelope in around.journal.outbox():
        why = f"{envelope.method} of migration {envelope.migration_id} waits until {envelope.to} is back"
        if reason := around.set_aside.get(envelope.id):
            why = f"{envelope.method} of migration {envelope.migration_id} is refused by {envelope.to}: {reason}"
        found.append(Found(around.leftover("cast", envelope.id, why, Safety.WAITING)))
    return found


def _says(entries: list[Entry]) -> str:
    for entry in reversed(entries):
        if entry.kind is Kind.NOTE and entry.name.startswith("waiting") and entry.data.get("why"):
            return str(entry.data["why"])
        if entry.kind is Kind.FAILED:
            return str((entry.data.get("error") or {}).get("message", entry.name))
        if entry.kind is Kind.STATUS:
            return f"{entry.data.get('status')}: {entry.data.get('reason', '')}"
    return "open"


def _later(do: Callable[..., Awaitable[object]], *args: object, **named: object) -> Act:
    return lambda: do(*args, **named)


FINDERS = (taps, incoming_guests, definitions, secrets, files, folders, kept_files, admissions, tokens, waiting)
"""In the order in which they are repaired: a definition goes before the disks nobody uses then."""
