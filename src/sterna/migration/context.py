"""What a step may touch: this host's ports, the other agent, and the journal of this one migration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sterna.domain.errors import Permanent, SternaError, Temporary, Unknown
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Disk, GuestState, Observation, Vm
from sterna.domain.status import Status, check_transition
from sterna.domain.step import History
from sterna.ports.clock import Clock
from sterna.ports.hypervisor import Hypervisor
from sterna.ports.network import Network
from sterna.ports.peer import Hints, Peer
from sterna.ports.records import Journal
from sterna.ports.storage import Storage
from sterna.ports.vif import Vif
from sterna.ports.volume import Volumes


@dataclass(frozen=True)
class HostPorts:
    """Everything one agent owns on its host."""

    name: str
    address: str
    uri: Callable[[str], str]
    """libvirt URI of another host's libvirtd, from its address."""
    hypervisor: Hypervisor
    vif: Vif
    network: Network
    volumes: Sequence[Volumes]
    storage: Storage
    clock: Clock

    def volumes_for(self, disk: Disk) -> Volumes:
        """The adapter that knows this disk. Raises Permanent where none does."""
        for adapter in self.volumes:
            if adapter.handles(disk):
                return adapter
        what = disk.detail or disk.kind
        raise Permanent(
            f"disk {disk.target}: {what} is not supported", fix="detach it, or configure a provider for it"
        )


@dataclass
class Context:
    """One migration on one host."""

    migration: Migration
    role: Role
    host: HostPorts
    peer: Peer
    hints: Hints
    journal: Journal
    history: History = field(default_factory=History)
    abort: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever something was written: a step that waits for a report looks again."""
    on_write: Callable[[Entry], None] = lambda entry: None

    @property
    def clock(self) -> Clock:
        """This host's time."""
        return self.host.clock

    @property
    def vm_uuid(self) -> str:
        """The guest's UUID."""
        return self.migration.vm_uuid

    def write(self, kind: Kind, *, row: str = "", name: str = "", data: Data | None = None) -> None:
        """Append to the journal, durably, then to `history`."""
        entry = self.journal.append(self.migration.id, kind, row=row, name=name, data=data or {})
        self.history.add(entry)
        self.news.set()
        self.on_write(entry)

    def note(self, row: str, name: str, data: Data | None = None) -> None:
        """Journal something seen or sent."""
        self.write(Kind.NOTE, row=row, name=name, data=data)

    def note_once(self, row: str, name: str, data: Data | None = None) -> None:
        """The same, but not again after a restart."""
        if name not in self.history.notes:
            self.note(row, name, data)

    def set_status(self, status: Status, reason: str) -> None:
        """Journal a status change; the same status again is nothing. Raises ValueError if it may not follow."""
        current = Status(self.history.status or Status.QUEUED)
        if current is status:
            return
        check_transition(current, status)
        self.write(Kind.STATUS, name=status, data={"status": status, "reason": reason})

    def vm_before(self) -> Vm:
        """P2's snapshot: the VM as it was, with every disk's `local` decided."""
        return Vm.model_validate(self.history.results["snapshot-volumes"]["vm"])

    def incoming_vm(self) -> Vm:
        """On the destination: the VM as the source described it at P3."""
        return Vm.model_validate(self.history.notes["incoming-vm"]["vm"])

    @property
    def token(self) -> str:
        """What this migration writes beside a disk to see whether the other host sees it."""
        return f"{self.migration.id}-{self.role}"

    async def peer_sees(self, path: str, token: str) -> bool:
        """Does the other host see `token` beside `path`? Raises Unreachable or Unknown."""
        return bool((await self.peer.call("sees_token", {"path": path, "token": token}))["seen"])

    async def observe_here(self) -> Observation:
        """This host's word about the guest; UNKNOWN where its libvirt does not answer."""
        try:
            return await self.host.hypervisor.observe(self.vm_uuid)
        except SternaError as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)

    async def observe_there(self) -> Observation:
        """The other host's word about the guest; UNKNOWN where its agent or libvirt does not answer."""
        try:
            answer = await self.peer.call("observe_guest", {"vm": self.vm_uuid})
        except (Temporary, Unknown) as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)
        return Observation.model_validate(answer["observation"])
