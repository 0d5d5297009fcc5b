"""What a step may touch: this host's ports, the other agent, and the journal of this one migration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import structlog

from sterna.domain import untrusted
from sterna.domain.calls import Call, GuestObserved, MigrationFate, ObserveGuest
from sterna.domain.entries.base import Note, StatusSet
from sterna.domain.entries.destination_notes import IncomingVm
from sterna.domain.entries.notes import (
    AskedDestination,
    CopyStarted,
    Counted,
    DestinationNotReached,
    HeldOldCopy,
    PeerDeclared,
    RunsThere,
    Saw,
    StayedHere,
    StreamChosen,
    WrittenOffByPeer,
    WroteOffPeer,
)
from sterna.domain.entries.source import Snapshot
from sterna.domain.errors import Permanent, SternaError, Undelivered, Unknown
from sterna.domain.fencing import WriteOff
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Disk, GuestState, Observation, Value, Vm
from sterna.domain.objective import Objective
from sterna.domain.policies import May
from sterna.domain.secrets import Brought
from sterna.domain.status import Status, check_transition
from sterna.domain.step import History
from sterna.migration.log import log_entry
from sterna.migration.sharing import Elsewhere, PeersFiles
from sterna.ports.clock import Clock
from sterna.ports.handshake import Handshake
from sterna.ports.hypervisor import Hypervisor
from sterna.ports.identity import PermitCheck
from sterna.ports.image import Images
from sterna.ports.network import Network
from sterna.ports.peer import Hints, Peer
from sterna.ports.probe import StreamProbe
from sterna.ports.records import Journal
from sterna.ports.secrets import Sealing
from sterna.ports.storage import Storage
from sterna.ports.vif import Vif
from sterna.ports.volume import Volumes

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=Value)


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
    sealing: Sealing
    """Whatever is sealed for this agent only its present life can open."""
    tunnel_uri: Callable[[str], str] = "qemu+ssh://root@{}/system".format
    """The same through SSH, for a copy that travels inside libvirt's own connection."""
    handshake: Handshake | None = None
    """None: TLS is not tried before it is needed."""
    probe: StreamProbe | None = None
    """None: whether a stream reaches the other host shows in the copy."""
    vif_plugging_timeout_s: float = 10.0
    """How long P12 waits for this host's network agent, in seconds."""
    wait_for: str = ""
    """The key of an interface's external_ids by which this host's network agent marks it as wired, for P12 to wait
    for. '': only a network service's agent is waited for."""
    vif_plugging_is_fatal: bool = False
    """Does a migration fail where that was too short?"""
    network_host: str = ""
    """What the cloud's services call this host; '' for `name`."""
    images: Images | None = None
    """None: there is no image service; the domain's own metadata is all there is."""
    traits: Sequence[str] = ()
    """The traits that the operator gives this host, for images that demand some."""
    more_addresses: Sequence[str] = ()
    """Further addresses of this host at which a memory stream may arrive."""
    permits: PermitCheck | None = None
    """None: a migration is taken from its source without the word of a controller."""

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
    """Set when an abort was requested."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every write to the journal: a step that waits for a report looks again."""
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    """On the source: the guest was paused for the switch-over, in this life of the agent."""
    runs_again: asyncio.Event = field(default_factory=asyncio.Event)
    """On the source: QEMU has let the guest run here after it had left in post-copy. Both hosts are asked."""
    on_write: Callable[[Entry], None] = lambda entry: None
    """Called after each durable write to the journal: announces the entry to the controllers."""
    brought: Brought = field(default_factory=Brought, repr=False)
    """On the destination: the secrets that the last P3 brought, sealed. Never journaled."""
    accepted_ms: float | None = None
    """On the source: when it was accepted, by this host's monotonic clock; None where an earlier life did that."""

    @property
    def network_hosts(self) -> tuple[str, str]:
        """Source and destination as the cloud's services call them."""
        return self.migration.network_hosts

    @property
    def asked_network(self) -> str:
        """The name of the network service, for the outcome of a step that asked it; '' without one."""
        return self.host.network.service

    @property
    def clock(self) -> Clock:
        """This host's time."""
        return self.host.clock

    @property
    def vm_uuid(self) -> str:
        """The guest's UUID."""
        return self.migration.vm_uuid

    def write(
        self, kind: Kind, *, row: str = "", name: str = "", data: Data | None = None, lazily: bool = False
    ) -> None:
        """Append to the journal, then to `history`: durably, or `lazily`, with whatever is written next."""
        entry = self.journal.append(self.migration.id, kind, row=row, name=name, data=data or {}, lazily=lazily)
        self.history.add(entry)
        log_entry(self.migration, self.host.name, entry)
        self.news.set()
        if not lazily:
            self.on_write(entry)

    def flush(self) -> None:
        """What was written lazily is durable now. Raises Temporary where the journal cannot be written."""
        last = self.journal.flush()
        if last is not None:
            self.on_write(last)

    def note(self, note: Note, about: str = "", *, row: str | None = None, lazily: bool = False) -> None:
        """Journal something seen or sent. `about`: which of its family; `row`: another one than its own."""
        under = note.under if row is None else row
        self.write(Kind.NOTE, row=under, name=note.entry + about, data=note.to_data(), lazily=lazily)

    def note_once(self, note: Note, about: str = "", *, row: str | None = None) -> None:
        """The same, unless such a note is in the journal already: written before a restart, for example."""
        if not self.history.has(type(note), about):
            self.note(note, about, row=row)

    def note_change(self, note: Note, about: str = "", *, row: str | None = None) -> None:
        """The same, unless the last note of this name has the same data."""
        if self.history.find(type(note), about) != note:
            self.note(note, about, row=row)

    def set_status(self, status: Status, reason: str) -> None:
        """Journal a status change; idempotent. Raises ValueError if the status may not follow."""
        current = Status(self.history.status or Status.QUEUED)
        if current is status:
            return
        check_transition(current, status)
        self.write(Kind.STATUS, name=status, data=StatusSet(status=status, reason=reason).to_data())

    def count(self, what: type[Counted]) -> None:
        """Journal that it happened once more."""
        self.note(what(times=self.times(what) + 1))

    def times(self, what: type[Counted]) -> int:
        """How often `count` has journaled it."""
        counted = self.history.find(what)
        return counted.times if counted else 0

    @property
    def untouched(self) -> bool:
        """No try of P3 ever reached the destination: it has prepared nothing and has nothing to undo.

        A try whose outcome is not in the journal (this agent died) counts as one that arrived.
        """
        return 0 < self.times(AskedDestination) == self.times(DestinationNotReached)

    @property
    def peer_fenced(self) -> bool:
        """An operator declared the other host dead, and it has not answered since."""
        declared = self.history.find(PeerDeclared)
        return declared is not None and declared.dead

    @property
    def written_off(self) -> WriteOff | None:
        """What the other half settled while this host was thought dead."""
        return self.history.find(WrittenOffByPeer)

    def write_off(self, outcome: str, why: str) -> None:
        """Journal, before acting on it, that this half ends the migration without the other one."""
        self.note_once(WroteOffPeer(outcome=outcome, why=why, host=self.peer_name))

    @property
    def peer_name(self) -> str:
        """The other host."""
        m = self.migration
        return m.destination if self.role is Role.SOURCE else m.source

    def vm_before(self) -> Vm:
        """P2's snapshot: the VM as it was, with every disk's `local` decided."""
        return self.history.get(Snapshot).vm

    def incoming_vm(self) -> Vm:
        """On the destination: the VM as the source described it at P3."""
        return self.history.get(IncomingVm).vm

    @property
    def postcopy(self) -> bool:
        """May the copy be switched to post-copy? Not where the hosts cannot, whatever the user permits."""
        chosen = self.history.find(StreamChosen)
        if chosen is None or chosen.parameters is None:  # the copy has not been put together yet
            return May.POSTCOPY in self.wanted.may
        return chosen.parameters.postcopy

    @cached_property
    def wanted(self) -> Objective:
        """What the user wants of this copy."""
        return self.migration.options.wanted

    @property
    def rehearses_copy(self) -> bool:
        """Is its copy only tried?"""
        return self.migration.options.rehearse == "copy"

    @property
    def handed_over(self) -> bool:
        """Was the guest seen to run on the destination, or libvirt to end the source's QEMU because it did?"""
        history = self.history
        return history.has(RunsThere) or history.has(HeldOldCopy) or history.has(Saw, "stopped-migrated")

    @property
    def stayed(self) -> bool:
        """On the source: does this journal prove that the guest never left, whatever the destination says?"""
        return not self.history.has(CopyStarted) or self.history.has(StayedHere)

    @property
    def switching(self) -> bool:
        """Was the source's guest ever paused for the switch-over?"""
        return self.history.has(Saw, "suspended-migrated")

    @property
    def token(self) -> str:
        """What this migration writes beside a disk to see whether the other host sees it."""
        return f"{self.migration.id}-{self.role}"

    @property
    def elsewhere(self) -> Elsewhere:
        """The other host's files."""
        return PeersFiles(self.peer.call, self.peer_name)

    async def observe_here(self) -> Observation:
        """This host's view of the guest; UNKNOWN where its libvirt does not answer."""
        try:
            seen = await self.host.hypervisor.observe(self.vm_uuid)
        except SternaError as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)
        if self.history.has(HeldOldCopy) and seen.state is GuestState.PAUSED and seen.reason == "user":
            return seen.model_copy(update={"reason": "migration"})  # Sterna's own pause
        return seen

    async def ask(self, call: Call[A]) -> A:
        """Ask the other host's agent. Raises as `Peer.call`; BadRequest where the answer cannot be read."""
        return untrusted.reply(call, await self.peer.call(call.method, call.to_wire()))

    async def observe_there(self) -> Observation:
        """The other host's view of the guest; UNKNOWN where its agent or libvirt does not answer, or not with an
        observation. Raises Temporary where the journal cannot be written."""
        question = ObserveGuest(vm=self.vm_uuid)
        try:
            answer = await self.peer.call(question.method, question.to_wire())
        except (Undelivered, Unknown) as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)
        except SternaError as error:
            self.peer_answered()  # its agent runs, even if it does not know
            return Observation(state=GuestState.UNKNOWN, reason=error.message)
        try:
            observed = GuestObserved.model_validate(answer)
        except ValueError as error:  # it decides nothing
            log.warning("an observation cannot be read", host=self.peer_name, error=str(error))
            return Observation(state=GuestState.UNKNOWN, reason=f"{self.peer_name} sent what cannot be read")
        self.peer_answered(observed.written_off)
        return observed.observation

    def peer_answered(self, written_off: WriteOff | None = None) -> None:
        """The other host is alive: the declaration no longer holds, and its answer about this host is accepted."""
        if self.peer_fenced and not self.history.has(WroteOffPeer):
            self.note(PeerDeclared(dead=False, why=f"{self.peer_name} answers again"))
        if written_off is not None:
            self.note_once(WrittenOffByPeer(outcome=written_off.outcome, why=written_off.why))

    async def ask_fate(self) -> WriteOff | None:
        """Did the other half settle the migration while this host was declared dead? Asked before anything is done
        here for a guest that no longer runs here. Raises Unreachable or Unknown while there is no answer."""
        if self.written_off is None and not self.peer_fenced:
            self.peer_answered((await self.ask(MigrationFate())).written_off)
        return self.written_off
