"""Each kind of leftover on one host: how it is found, and how it is removed. Called by `agent/audit.py`.

A finder only reads. What it finds is looked for again right before it is removed, by the same finder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

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
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.model import Disk, GuestState, Nic, Observation, VmSummary
from sterna.domain.plugs import tap_name
from sterna.domain.whereabouts import SAVED
from sterna.kit.tasks import all_of
from sterna.kit.waiting import within
from sterna.migration.context import HostPorts
from sterna.migration.secrets import counted_on
from sterna.migration.sharing import silent_on
from sterna.ports.records import Journal
from sterna.ports.storage import Created
from sterna.rpc.client import RpcClient

ASK_S = 5.0
"""How long one silent host may hold up the question, in seconds."""
LOOK_S = 15.0
"""How long one that lives may: its libvirt or a file system hangs."""
AT_ONCE = 8
"""Things that are looked at side by side: where one hangs, others are not."""
LONG_S = 600.0
"""An open migration is worth a line when nothing was written about it for this long."""

Act = Callable[[], Awaitable[object]]
T = TypeVar("T")


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
    until_ms: float
    """When this audit is to be over, on the host's clock."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Casts that nobody tries again for now, by id, and why."""

    @property
    def moving(self) -> set[str]:
        """VMs in an open migration here: what they have is that migration's. Read it after the world."""
        return {migration.vm_uuid for migration, _ in self.journal.open()}

    @property
    def left_s(self) -> float:
        """What is left of its time."""
        return max(0.0, (self.until_ms - self.host.clock.monotonic_ms()) / 1000)

    def shortly(self, seconds: float) -> Surroundings:
        """The same, with so much time at most."""
        return replace(self, until_ms=min(self.until_ms, self.host.clock.monotonic_ms() + seconds * 1000))

    async def elsewhere(self, vm: str) -> Elsewhere:
        """What all other hosts say of that guest, now."""
        answers = await asyncio.gather(*(self._ask(name, vm) for name in self.others))
        answered = zip(self.others, answers, strict=True)
        seen = {n: o for n, o in answered if o is not None and o.state is not GuestState.UNKNOWN}
        return Elsewhere(seen, tuple(sorted({*self.silent, *(set(self.others) - set(seen))})))

    async def sees(self, host: str, path: str, token: str) -> bool:
        """Does that host see the token? Raises Unreachable or Unknown; StorageSilent, with the host."""
        params = {"path": path, "token": token}
        with silent_on(host):
            answer = await self.client.call(host, "sees_token", params, silence_s=ASK_S, total_s=LOOK_S)
        return bool(answer["seen"])

    def leftover(self, kind: str, subject: str, why: str, safety: Safety, **more: str) -> Leftover:
        """One of this host's."""
        return Leftover(kind=kind, host=self.host.name, subject=subject, why=why, safety=safety, **more)

    def not_looked_at(self, kind: str, subject: str, why: str) -> Leftover:
        """Something here, of which nobody can say for now whether it is one."""
        return self.leftover("not-looked-at", subject, f"{kind} cannot be looked for: {why}", Safety.CANNOT_TELL)

    async def _ask(self, host: str, vm: str) -> Observation | None:
        try:
            answer = await self.client.call(host, "observe_guest", {"vm": vm}, silence_s=ASK_S, total_s=LOOK_S)
        except SternaError:
            return None
        return Observation.model_validate(answer["observation"])


Finder = Callable[[Surroundings], Coroutine[Any, Any, list[Found]]]
Look = Callable[[Surroundings, T], Coroutine[Any, Any, list[Found]]]


async def _each(
    around: Surroundings, kind: str, things: Iterable[T], subject: Callable[[T], str], look: Look[T]
) -> list[Found]:
    """`look` at each of them, several at once. One that cannot be looked at in time is said, and hides no other."""
    room = asyncio.Semaphore(AT_ONCE)

    async def at(thing: T) -> list[Found]:
        try:
            async with room:
                return await within(around.host.clock, around.left_s, look(around, thing))
        except TimeoutError:
            why = "no answer before this audit had to end"
        except SternaError as error:
            why = error.message
        return [Found(around.not_looked_at(kind, subject(thing), why))]

    return [one for found in await all_of(at(thing) for thing in things) for one in found]


async def taps(around: Surroundings) -> list[Found]:
    """Ports Sterna made ahead of a guest that has no QEMU here. The agent removes them by itself in a while."""
    return await _each(around, "taps", await around.host.vif.made_ahead(), _device, _tap)


def _device(nic: Nic) -> str:
    return nic.device or tap_name(nic)


async def _tap(around: Surroundings, nic: Nic) -> list[Found]:
    device, vm = _device(nic), nic.external_ids.get("vm-uuid", "")
    if not vm:
        why = "made by Sterna, but it does not say for which VM"
        return [Found(around.leftover("tap", device, why, Safety.CANNOT_TELL))]
    here = await around.host.hypervisor.observe(vm)
    startable = here.state is GuestState.SHUTOFF  # then only the tap is too much
    needed = startable and (nic.device is None or here.reason == SAVED)
    if not off(here) or vm in around.moving or needed:
        return []
    why = "made ahead of a guest that has no QEMU here"
    words = {"vm": vm, "repair": f"take {device} off {nic.bridge} and delete it"}
    unplug = _later(around.host.vif.unplug, nic, for_good=not startable)
    return [Found(around.leftover("tap", device, why, Safety.SAFE, **words), unplug)]


async def incoming_guests(around: Surroundings) -> list[Found]:
    """Guests that wait for their memory although no migration is under way."""
    paused = [vm for vm in await around.host.hypervisor.vms() if vm.state is GuestState.PAUSED]
    return await _each(around, "incoming guests", paused, _name, _incoming)


def _name(vm: VmSummary) -> str:
    return vm.name


async def _incoming(around: Surroundings, vm: VmSummary) -> list[Found]:
    hypervisor = around.host.hypervisor
    here = await hypervisor.observe(vm.uuid)
    if here.epoch is None or here.ran or vm.uuid in around.moving:
        return []
    judged = judge_incoming(here, await around.elsewhere(vm.uuid))
    if judged is None or vm.uuid in around.moving:
        return []
    words = {"vm": vm.uuid, "repair": judged.helps or "end it; it never ran"}
    end = _later(hypervisor.end_incoming, vm.uuid, here.epoch)
    return [Found(around.leftover("incoming-guest", vm.name, judged.why, judged.safety, **words), end)]


async def definitions(around: Surroundings) -> list[Found]:
    """Definitions a move left behind."""
    stopped = [vm for vm in await around.host.hypervisor.vms() if vm.state is GuestState.SHUTOFF]
    return await _each(around, "definitions", stopped, _name, _definition)


async def _definition(around: Surroundings, vm: VmSummary) -> list[Found]:
    hypervisor = around.host.hypervisor
    here = await hypervisor.observe(vm.uuid)
    if here.epoch is None or vm.uuid in around.moving:
        return []
    judged = judge_definition(here, await around.elsewhere(vm.uuid))
    if judged is None or vm.uuid in around.moving:
        return []
    words = {"vm": vm.uuid, "repair": judged.helps or "undefine it; its disks are left alone"}
    undefine = _later(hypervisor.undefine, vm.uuid, here.epoch)
    return [Found(around.leftover("definition", vm.name, judged.why, judged.safety, **words), undefine)]


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
    made = around.journal.settled("create-instance-directory")
    over = [e for e in made if e.kind is Kind.INTENT and e.migration_id not in undone | arrived]
    return await _each(around, "files", over, _made, _given_up)


def _made(entry: Entry) -> str:
    created = Created.model_validate(entry.data)
    return ", ".join(created.files or created.directories)


async def _given_up(around: Surroundings, entry: Entry) -> list[Found]:
    made = Created.model_validate(entry.data)
    known = around.journal.get(entry.migration_id)
    vm = known[0].vm_uuid if known else ""
    storage = around.host.storage
    present = [path for path in made.files if await storage.readable(path)]
    folders = [d for d in made.directories if d in await storage.directories_of(vm)]
    if not present and not folders:
        return []
    if vm in {v.uuid for v in await around.host.hypervisor.vms()} or vm in around.moving:
        return []  # a guest of this UUID is here: they are its own
    if await storage.used_by(tuple(present), await around.host.hypervisor.claims(), locks=True, perhaps=True):
        return []  # somebody has come to use them, or may have
    elsewhere = await around.elsewhere(vm)
    judged = judge_files(elsewhere)
    if judged.safety is Safety.SAFE:
        host = next(iter(elsewhere.running))
        for path in present:
            if await _shared(around, host, path):
                return []  # the running guest's own
    subject = ", ".join(present or folders)
    words = {"vm": vm, "repair": judged.helps or "remove them, and the directories that are empty then"}
    remove = _later(storage.remove, made)
    return [Found(around.leftover("files", subject, judged.why, judged.safety, **words), remove)]


async def kept_files(around: Surroundings) -> list[Found]:
    """What F10 and R7 left alone, since somebody else needed it or nothing could be proven. A person decides."""
    here = {vm.uuid for vm in await around.host.hypervisor.vms()}
    left: dict[str, tuple[str, str]] = {}
    for step in ("remove-vm-at-source", "remove-instance-directory"):
        for entry in around.journal.settled(step):
            known = around.journal.get(entry.migration_id)
            vm = known[0].vm_uuid if known else ""
            kept = entry.data.get("kept", {}) if entry.kind is Kind.DONE and vm not in here | around.moving else {}
            left |= {path: (vm, reason) for path, reason in kept.items()}

    async def look(around: Surroundings, path: str) -> list[Found]:
        if await around.host.storage.identity(path) is None:
            return []
        vm, reason = left[path]
        words = {"vm": vm, "repair": "remove it by hand, if nobody needs it"}
        why = f"left when the VM went: {reason}"
        return [Found(around.leftover("files", path, why, Safety.NEVER, **words))]

    return await _each(around, "kept files", left, str, look)


async def folders(around: Surroundings) -> list[Found]:
    """Empty instance directories that P8 made, or that F10 found, of VMs that are not here any more."""
    here = {vm.uuid for vm in await around.host.hypervisor.vms()}
    made: dict[str, str] = {}
    for step in ("create-instance-directory", "remove-vm-at-source"):
        for entry in around.journal.settled(step):
            if (known := around.journal.get(entry.migration_id)) is not None:
                made |= dict.fromkeys(entry.data.get("directories", ()), known[0].vm_uuid)

    async def look(around: Surroundings, path: str) -> list[Found]:
        vm = made[path]
        if vm in here or vm in around.moving or not await around.host.storage.is_empty(path):
            return []
        judged = judge_folder(await around.elsewhere(vm), shared=await _seen_by(around, vm, path))
        if judged is None or vm in around.moving:
            return []
        words = {"vm": vm, "repair": judged.helps or "remove it, if it is still empty"}
        remove = _later(around.host.storage.remove, Created(directories=(path,)))
        return [Found(around.leftover("folder", path, judged.why, judged.safety, **words), remove)]

    return await _each(around, "folders", sorted(made), str, look)


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
    with around.tokens.fresh() as token:  # each look its own: others may be beside it
        try:
            await around.host.storage.leave_token(path, token)
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
    used: asyncio.Task[set[str]] | None = None

    async def look(around: Surroundings, volume: str) -> list[Found]:
        nonlocal used
        disk, vm = asked[volume]
        adapter = around.host.volumes_for(disk)
        if not await adapter.admitted(disk):
            return []
        if used is None:
            used = asyncio.create_task(_volumes_in_use(around))  # asked once, also where that fails
        if volume in await used or vm in around.moving:
            return []
        why = "admitted for a migration that is over; no guest here, running or off, uses it"
        words = {"vm": vm, "repair": "withdraw this host's admission"}
        detach = _later(adapter.detach, disk)
        return [Found(around.leftover("admission", volume, why, Safety.SAFE, **words), detach)]

    return await _each(around, "admissions", asked, str, look)


def _volume(disk: Disk) -> str:
    if disk.rbd is not None:
        return disk.rbd.name
    return disk.iscsi.target if disk.iscsi is not None else disk.path or disk.target


async def _volumes_in_use(around: Surroundings) -> set[str]:
    used: set[str] = set()
    for summary in await around.host.hypervisor.vms():
        with suppress(NotFound):  # gone meanwhile
            vm = await around.host.hypervisor.vm(summary.uuid)
            used |= {_volume(disk) for disk in vm.disks}
    return used


async def tokens(around: Surroundings) -> list[Found]:
    """Tokens of the sharing test that this host left beside a disk."""
    paths = {p for e in around.journal.settled("snapshot-volumes") for p in e.data.get("paths", ())}

    async def note_paths(around: Surroundings, summary: VmSummary) -> list[Found]:
        with suppress(NotFound):  # gone meanwhile
            vm = await around.host.hypervisor.vm(summary.uuid)
            paths.update(path for d in vm.disks for path in d.files)
        return []

    silent = await _each(around, "tokens", await around.host.hypervisor.vms(), _name, note_paths)
    beside = await _each(around, "tokens", sorted(paths), str, _tokens_beside)
    return [*silent, *{one.leftover.subject: one for one in beside}.values()]


async def _tokens_beside(around: Surroundings, path: str) -> list[Found]:
    found = []
    for token in await around.host.storage.tokens(path):
        if _over(around, token):
            place = f"{path.rpartition('/')[0]}/.sterna-{token}"
            why = "left by a test whether the folder is shared, which is over"
            drop = _later(around.host.storage.drop_token, path, token)
            leftover = around.leftover("token", place, why, Safety.SAFE, repair="remove the file")
            found.append(Found(leftover, drop))
    return found


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
