"""The controller's records: hosts, VMs as last seen, migrations, and the journals' entries as they were read.

Seven things are only here: which hosts are in maintenance, the host UUID that belongs to a name, requests that no
agent has accepted yet, operations, placement rules, tokens, and the audit log. Everything else is a projection: the
agents' journals are the truth, and can be read again. Every method is one transaction. Raises Unreachable where the
database is away, BadRequest for text that it cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from sterna.domain.hosts import HostFacts
from sterna.domain.journal import Entry, Migration, accepted_migration
from sterna.domain.model import Data, GuestState, Value
from sterna.domain.nova import NovaFacts
from sterna.domain.progress import Progress
from sterna.domain.sightings import Mark, News
from sterna.domain.status import Status
from sterna.ports.access import AccessRecords
from sterna.ports.notifications import NotificationRecords
from sterna.ports.operations import OperationRecords
from sterna.ports.pruning import PruneRecords
from sterna.ports.rules import RuleRecords


class HostRecord(Value):
    """One host as the controller knows it."""

    facts: HostFacts
    """From its last stored beacon; `facts.host_uuid` is what the name is pinned to."""
    maintenance: bool = False
    maintenance_reason: str = ""
    """Why it is in maintenance, as the operator wrote it, or an operation."""
    closed_by: str = ""
    """The operation that has put it into maintenance; '' where a person has."""
    seen_at: str
    """ISO 8601 UTC, the controller's clock, of the last beacon that was stored."""
    boot: str = ""
    """Of its agent."""
    dead_at: str = ""
    """ISO 8601 UTC: an operator declared it dead and fenced; '' where it was not."""
    back_at: str = ""
    """ISO 8601 UTC: a beacon came again after that."""
    cursor: int = 0
    """Position in its journal up to which everything has been taken."""
    mark: str = ""
    """A mark of the entry at `cursor`: a journal with another entry there is another journal."""
    generation: int = 0
    """How often this host's journal was found to be another one."""

    @property
    def name(self) -> str:
        """The host's name."""
        return self.facts.name


class VmRecord(Value):
    """One VM as last seen, and the migration that it is in."""

    uuid: str
    name: str
    host: str
    state: GuestState
    memory_bytes: int | None = None
    vcpus: int | None = None
    nova: NovaFacts | None = None
    volumes: tuple[str, ...] = ()
    """Cinder volumes: serials of its disks that are UUIDs, as Nova writes them."""
    asleep: bool = False
    """The guest is suspended to memory; its state is `paused`."""
    observed_at: str = ""
    """ISO 8601 UTC, the controller's clock; empty if it was never listed."""
    changed_at: str = ""
    """When its state or host last changed, or a migration of it ended; ISO 8601 UTC, the controller's clock. Empty
    if unknown."""
    migration_id: str | None = None
    """The migration that the VM is in: its task_state is `migrating`."""
    also: tuple[str, ...] = ()
    """Other hosts that run it as well, confirmed by asking again: invariant 1 of the protocol is violated."""


class MigrationRecord(Value):
    """One migration, from the journals."""

    number: int = 0
    """In order of arrival; what pages are made of."""
    migration: Migration
    status: Status = Status.QUEUED
    reason: str = ""
    """Why it is in this status; what is being waited for."""
    told: str = ""
    """The reason that came with the status: `reason` returns to it when a problem is over."""
    error: Data | None = None
    """What turned it back, as errors cross the bus."""
    progress: Progress = Progress()
    accepted: bool = False
    """The source's journal has it."""
    promised: bool = False
    """A repeated request was answered with it before the source had accepted it: it is not forgotten any more."""
    updated_at: str = ""
    finished_at: str | None = None
    """ISO 8601 UTC, the source's clock, of its end."""
    source_closed: bool = False
    destination_closed: bool = False
    reported_by: str = ""
    """The host in whose journal it was found, where no controller is known to have asked for it; else ''. A host
    writes into its journal what it likes."""
    written_off: bool = False
    """It was ended without its source, which was declared dead: later entries of the source change nothing."""

    @property
    def id(self) -> str:
        """The migration's UUID."""
        return self.migration.id

    def is_closed(self, *, on_destination: bool) -> bool:
        """Has it ended, and is nothing of it left to do on its hosts, as far as known? `on_destination`: the
        destination's journal has it."""
        on_source = self.accepted and not self.written_off
        source_is_done = self.source_closed or not on_source
        return self.status.final and source_is_done and (self.destination_closed or not on_destination)


class EntryRecord(Value):
    """One journal entry as stored; `id` orders all of them and is the event's id."""

    id: int
    host: str
    entry: Entry


class VmChange(Value):
    """The VM's state from an entry: F8, or the end of its migration."""

    host: str
    state: GuestState | None = None
    """None: as it is known."""
    holder: str = ""
    """Only while this migration holds the VM; '': whichever does."""


class Effect(Value):
    """What one entry changes."""

    record: MigrationRecord
    vm: VmChange | None = None
    holds: bool | None = None
    """True: the VM is taken by this migration. False: it is free again. None: no change."""


Apply = Callable[[MigrationRecord, str, Entry], Effect]
"""The projector's rule: a record, the host, and the next entry of its journal."""


class Batch(Value):
    """Entries of one host's journal, in order, with the migrations they speak of."""

    host: str
    entries: tuple[Entry, ...]
    migrations: tuple[Migration, ...]
    permitted: frozenset[str] = frozenset()
    """Ids of those for which a controller has signed a permit that is still valid."""

    def told(self, entry: Entry) -> Migration | None:
        """The migration that an entry is about, as this host says."""
        for migration in self.migrations:
            if migration.id == entry.migration_id:
                return migration
        found = accepted_migration(entry)
        return found if found is not None and found.id == entry.migration_id else None


def mark_of(entry: Entry) -> str:
    """Distinguishes an entry from one at the same place of another journal."""
    return f"{entry.seq}/{entry.boot}/{entry.mono_ms}"


class Page(Value):
    """Which migrations to list, newest first."""

    before: int | None = None
    """Only those with a smaller number."""
    limit: int = 50
    vm: str | None = None
    """UUID or name."""
    statuses: tuple[Status, ...] = ()
    id_prefix: str = ""
    holding: bool = False
    """Only those that hold their VM. A host may write others into its journal as it likes."""
    asked_for: bool = False
    """Only those that a controller is known to have asked for."""


class VmPage(Value):
    """Which VMs to list, by name and UUID."""

    after: tuple[str, str] | None = None
    """Only those behind this name and UUID."""
    limit: int = 50
    host: str | None = None
    """Also those that are at home elsewhere, and that it says it runs."""
    name: str = ""
    """Part of the name."""
    states: tuple[GuestState, ...] = ()
    silent: tuple[str, ...] = ()
    """Hosts that do not answer now: the state of their VMs is `unknown`, whatever was stored."""


class Taken(Value):
    """What came of hosts' news."""

    marks: dict[str, Mark] = {}
    """Up to where each host's list is known now."""
    gaps: frozenset[str] = frozenset()
    """Hosts whose news could not be taken: the whole list is needed."""
    doubtful: frozenset[str] = frozenset()
    """Hosts that say of a VM that it runs there, after another one has said so: they must be asked again."""


class FleetCounts(Value):
    """How many there are of what."""

    vms: dict[tuple[str, str], int] = {}
    """By host and state, as last seen."""
    migrations: dict[tuple[str, str, str], int] = {}
    """Those that hold their VM, by status, source and destination."""
    operations: dict[str, int] = {}
    """Those that have not ended, by status."""


class Fleet(AccessRecords, NotificationRecords, OperationRecords, PruneRecords, RuleRecords, Protocol):
    """The controller's records."""

    async def hosts(self) -> list[HostRecord]:
        """All hosts ever accepted, by name."""

    async def host(self, name: str) -> HostRecord:
        """Raises NotFound."""

    async def save_host(self, facts: HostFacts, boot: str, at: str) -> HostRecord:
        """Store a beacon; the first one pins the name. Raises Conflict on another host UUID."""

    async def pin_host(self, name: str, host_uuid: str) -> HostRecord:
        """The name belongs to the host of that UUID from now on. Raises NotFound; Conflict where the UUID is
        another host's."""

    async def set_maintenance(self, name: str, on: bool, reason: str = "") -> HostRecord:
        """Raises NotFound; Conflict where an operation keeps the host closed."""

    async def set_dead(self, name: str, at: str) -> HostRecord:
        """An operator declared it dead at that time; '' takes it back. Raises NotFound."""

    async def vms(self) -> list[VmRecord]:
        """All VMs as last seen."""

    async def vms_called(self, name_or_uuid: str) -> list[VmRecord]:
        """The VM of that UUID, else all of that name, as last seen."""

    async def page_of_vms(self, page: VmPage) -> list[VmRecord]:
        """In the order of their names, then UUIDs, as bytes."""

    async def take_news(self, told: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        """What hosts say of their VMs, in this order, as far as it fits what is known of each; those nobody has any
        longer are forgotten, unless they migrate. `asked`: these hosts have been asked again."""

    async def marks(self) -> dict[str, Mark]:
        """Up to where each host's list of VMs has been taken; only those that count."""

    async def digest_in_records(self, host: str) -> str:
        """Of the list of its VMs as it is stored."""

    async def admit(
        self, migration: Migration, at: str, up: Collection[str] | None = None
    ) -> tuple[MigrationRecord, bool]:
        """Take the VM (compare-and-swap) and record the request; True where the id was known already: then it is
        promised. `up`: hosts that can be used; None: placement rules are not looked at.

        Raises Refused where a placement rule speaks against it; Conflict, naming the migration, where another one
        holds the VM; also for a migration of an operation that has given it up, or has found its VM on another
        host.
        """

    async def accepted(self, migration: Migration, at: str) -> MigrationRecord:
        """The source has accepted it, with this epoch. Raises NotFound."""

    async def promise(self, migration_id: str) -> MigrationRecord | None:
        """The record that a repeated request is about to be answered with; None where there is none any more."""

    async def withdraw(self, migration_id: str, reason: str, at: str) -> None:
        """Forget a request that no agent accepted, and free its VM. One that was promised is kept, as failed for
        this reason. Does nothing once it was accepted, or has ended."""

    async def settle(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a request that no agent accepted, keeping the record, and free its VM."""

    async def write_off(self, migration_id: str, status: Status, reason: str, at: str) -> None:
        """End a migration whose source is dead and whose end is in no remaining journal, and free its VM. One that
        has ended is left alone."""

    async def explain(self, migration_id: str, reason: str, at: str) -> None:
        """Set the reason of a request that is neither accepted nor ended: what it waits for."""

    async def migration(self, migration_id: str) -> MigrationRecord:
        """Raises NotFound."""

    async def migrations(self, page: Page) -> list[MigrationRecord]:
        """Newest first."""

    async def take(self, batch: Batch, apply: Apply, at: str) -> list[EntryRecord]:
        """Store the entries not stored yet and what they change, and move the host's cursor; those stored.

        Raises NotFound where the host is not known.
        """

    async def reread(self, host: str) -> None:
        """The host's journal is another one: read it from its beginning."""

    async def save_progress(self, progress: Mapping[str, Progress]) -> None:
        """How running copies are getting on, by their migrations' ids. Of one whose status has changed nothing is
        stored."""

    async def entries(self, migration_id: str) -> list[Entry]:
        """Both hosts' entries of one migration."""

    async def events(self, after: int, migration_id: str | None = None, limit: int = 200) -> list[EntryRecord]:
        """Stored entries with a greater id, in order."""

    async def last_event(self) -> int:
        """The greatest id; 0 where there is none."""

    async def counts(self) -> FleetCounts:
        """Numbers for metrics, of one moment."""

    async def close(self) -> None:
        """Let the database go."""
