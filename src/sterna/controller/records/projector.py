"""The agents' journals -> the controller's records. The journals are the truth; hints only say when to look.

`apply` is the whole rule, pure; `Projector.pull` reads what is new of one host's journal and applies it. Reading
it again changes nothing, and an empty database is filled again from zero.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.copy_progress import CopyProgress
from sterna.controller.records.events import Events
from sterna.domain import untrusted
from sterna.domain.entries.base import DirectionChanged, Failed, StatusSet
from sterna.domain.entries.destination import VmUpdated
from sterna.domain.entries.notes import DestinationReport, RehearsedCopy, Waiting
from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind, Role, accepted_migration
from sterna.domain.model import GuestState
from sterna.domain.progress import with_sample, with_status
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Batch, Effect, EntryRecord, Fleet, MigrationRecord, VmChange, mark_of
from sterna.ports.identity import Permits

log = structlog.get_logger(__name__)

PAGE = 200
"""Entries asked for at once: some 100 kB, well under the bus's limit."""
LASTING = ("R", "F")
"""Rows that are tried until they are done begin with these."""
PAGE_S = 60.0
"""A page takes milliseconds; callers wait for its reader no longer than this."""
MOST_PAGES, GO_S = 50, 5.0
"""Read in one go, of one journal: it may be very long, or without an end. Others wait for their turn with it."""


class Pulled(NamedTuple):
    """What was read of a journal."""

    entries: int = 0
    more: bool = True
    """Its end was not reached."""


class _Page(NamedTuple):
    entries: int = 0
    last: bool = False
    """There is nothing more to read."""
    replaced: bool = False
    """It is of another journal, which is to be read from its beginning."""


def apply(record: MigrationRecord, host: str, entry: Entry) -> Effect:
    """What one journal entry changes in the records: nothing where it is not from that migration's own host."""
    expected = record.migration.source if entry.role is Role.SOURCE else record.migration.destination
    if host != expected:
        log.warning("an entry about a migration between other hosts", host=host, migration=record.id)
        return Effect(record=record)
    if entry.role is Role.SOURCE:
        return _from_source(record, entry)
    return _from_destination(record, host, entry)


def _from_source(record: MigrationRecord, entry: Entry) -> Effect:
    match entry.kind:
        case Kind.ACCEPTED:
            migration = accepted_migration(entry) or record.migration
            if not migration.is_about_the_same(record.migration):
                log.warning("a different migration has the same id", migration=record.id, source=migration.source)
                return Effect(record=record)
            known = migration.as_asked(record.migration)
            accepted = record.model_copy(update={"migration": known, "accepted": True, "reason": "accepted"})
            read_again = record.accepted and record.status.final
            return Effect(record=accepted, holds=None if read_again else True)
        case Kind.STATUS:
            return _status(record, entry)
        case Kind.COMPENSATING:
            error = DirectionChanged.read(entry).error
            reason = error.model_dump(mode="json") if error else None
            return Effect(record=record.model_copy(update={"error": reason}))
        case Kind.RELEASED:
            return Effect(record=record, holds=False)
        case Kind.CLOSED:
            return Effect(record=record.model_copy(update={"source_closed": True}), holds=False)
        case Kind.DONE | Kind.NOTE if _is_less_specific(record, entry):
            return Effect(record=record)
        case Kind.NOTE if (waiting := Waiting.of(entry)) and waiting.why:
            return _explained(record, waiting.why)
        case Kind.FAILED if not Failed.read(entry).final:
            return _explained(record, _tried_again(entry))
        case Kind.DONE:
            return _explained(record, record.told)
        case Kind.NOTE if entry.row == "M3" and (sample := RehearsedCopy.read(entry).sample):
            progress = with_sample(record.progress, sample)
            return Effect(record=record.model_copy(update={"progress": progress}))
        case _:
            return Effect(record=record)


def _is_less_specific(record: MigrationRecord, entry: Entry) -> bool:
    """Than what is known of the destination: that it is waited for, or that a step of the source is done."""
    if not record.reason.startswith(_there(record.migration.destination)):
        return False
    return entry.kind is Kind.DONE or entry.name.startswith(f"{Waiting.entry}-{DestinationReport.entry}")


def _there(host: str) -> str:
    """How a reason begins that a destination gave."""
    return f"on {host}, "


def _tried_again(entry: Entry) -> str:
    return f"{entry.row or entry.name} is tried again: {Failed.read(entry).error.message}"


def _explained(record: MigrationRecord, reason: str) -> Effect:
    """What is waited for, while it lasts."""
    if record.status.final or record.reason == reason:
        return Effect(record=record)
    return Effect(record=record.model_copy(update={"reason": reason}))


def _status(record: MigrationRecord, entry: Entry) -> Effect:
    entry_status = StatusSet.read(entry)
    try:
        status = Status(entry_status.status)
    except ValueError:
        log.warning("status not known to this version", migration=record.id, status=entry_status.status)
        return Effect(record=record)
    if record.written_off and not status.final:
        return Effect(record=record)  # its source was declared dead, and goes through the rest now that it is back
    change = {
        "status": status,
        "reason": entry_status.reason,
        "told": entry_status.reason,
        "progress": with_status(record.progress, status),
        "finished_at": entry.at if status.final else None,
    }
    return Effect(
        record=record.model_copy(update=change),
        vm=_moved(record) if status is Status.COMPLETED else None,
        holds=False if status.final else None,
    )


def _moved(record: MigrationRecord) -> VmChange:
    """The VM is free again on its new host, in one transaction: F8 is in the destination's journal, which may be
    read later."""
    return VmChange(host=record.migration.destination, holder=record.id)


def _from_destination(record: MigrationRecord, host: str, entry: Entry) -> Effect:
    if entry.kind is Kind.CLOSED:
        return Effect(record=record.model_copy(update={"destination_closed": True}))
    if entry.kind is Kind.STATUS:  # the source is dead and fenced: this half has ended it alone
        return _status(record.model_copy(update={"written_off": True}), entry)
    if entry.kind is Kind.DONE and entry.row == "F8":
        return Effect(record=_explained_there(record, host, entry), vm=_arrived(host, entry))
    return Effect(record=_explained_there(record, host, entry))


def _explained_there(record: MigrationRecord, host: str, entry: Entry) -> MigrationRecord:
    """With what the destination retries for as long as it takes: R4-R7, F5-F9. The source reports all else."""
    there = _there(host)
    if entry.row[:1] in LASTING and entry.kind is Kind.FAILED and not Failed.read(entry).final:
        return _explained(record, there + _tried_again(entry)).record
    if entry.row[:1] in LASTING and (waiting := Waiting.of(entry)) and waiting.why:
        return _explained(record, there + waiting.why).record
    if entry.kind is Kind.DONE and record.reason.startswith(there):
        return _explained(record, record.told).record
    return record


def _arrived(host: str, entry: Entry) -> VmChange:
    try:
        state = GuestState(VmUpdated.read(entry).power_state)
    except ValueError:
        state = GuestState.UNKNOWN
    return VmChange(host=host, state=state)


async def _ignored(stored: Sequence[EntryRecord]) -> None:
    """Where nobody counts."""


class Projector:
    """Reads journals into the records."""

    def __init__(
        self,
        fleet: Fleet,
        calls: AgentCalls,
        events: Events,
        copies: CopyProgress,
        clock: Clock,
        permits: Permits | None = None,
    ) -> None:
        """`permits`: None where controllers have no certificates."""
        self._fleet, self._calls, self._events, self._clock = fleet, calls, events, clock
        self._copies, self._permits = copies, permits
        self.on_stored: Callable[[Sequence[EntryRecord]], Awaitable[None]] = _ignored
        """Called with the entries that were not in the records before. Raises nothing."""
        self.on_taken: Callable[[str, Sequence[Entry]], None] = lambda host, entries: None
        """Called when the records have more of a host's journal than was known here: with these entries, or none
        where another controller has taken them. Raises nothing."""
        self._read_to: dict[str, int] = {}
        """Up to where each journal was read when it was last looked at from here."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pull(self, host: str) -> Pulled:
        """Read what is new in one host's journal: to its end, or as much as is read in one go.

        Raises NotFound for an unknown host, Unknown for entries of another version, and what `AgentCalls.call`
        raises.
        """
        async with self._locks[host]:
            until_ms, entries, replaced = self._clock.monotonic_ms() + GO_S * 1000, 0, 0
            for _ in range(MOST_PAGES):
                page = await self._pull_page(host)
                if page.last:
                    return Pulled(entries, more=False)
                entries += page.entries
                replaced += page.replaced
                if replaced > 1 or self._clock.monotonic_ms() >= until_ms:
                    break
            return Pulled(entries)

    async def _pull_page(self, host: str) -> _Page:
        known = await self._fleet.host(host)
        if known.cursor > self._read_to.setdefault(host, known.cursor):
            self.on_taken(host, ())
        self._read_to[host] = known.cursor
        # one entry back: if that entry is a different one, it is not the journal that was read before
        since = max(known.cursor - 1, 0)
        params = {"cursor": since, "limit": PAGE}
        answer = await self._calls.call(host, "journal_since", params, total_s=PAGE_S)
        with reading(host, "journal_since"):
            entries = [Entry.model_validate(e) for e in answer.get("entries", ())]
            for entry in entries:
                if entry.kind is Kind.ACCEPTED:
                    untrusted.migration(entry.data)
            migrations = tuple(untrusted.migration(m) for m in answer.get("migrations", ()))
        if known.cursor and (not entries or mark_of(entries[0]) != known.mark):
            log.warning("this host has a new journal: reading it from the beginning", host=host)
            await self._fleet.reread(host)
            return _Page(replaced=True)
        new = [e for e in entries if e.seq > known.cursor]
        if not new:
            return _Page(last=True)
        batch = Batch(host=host, entries=tuple(new), migrations=migrations)
        changing = {e.migration_id for e in new if e.kind is Kind.STATUS}
        await self._copies.save(changing)
        batch = batch.model_copy(update={"permitted": await self._permitted(batch)})
        stored = await self._fleet.take(batch, apply, self._clock.now().isoformat())
        self._copies.forget(changing)
        if stored:
            self._events.wake()
            await self.on_stored(stored)
        self._read_to[host] = new[-1].seq
        self.on_taken(host, new)
        return _Page(len(stored))

    async def _permitted(self, batch: Batch) -> frozenset[str]:
        """Which of the migrations that begin here a controller has asked for, as their permits prove. It may be one
        whose records were lost."""
        if self._permits is None:
            return frozenset()
        begun = [batch.told(entry) for entry in batch.entries if entry.kind is Kind.ACCEPTED]
        with_permit = {one.id: one for one in begun if one is not None and one.permit}
        found = set[str]()
        for migration in with_permit.values():
            try:
                if not await self._permits.against(migration):
                    found.add(migration.id)
            except SternaError as error:
                log.warning("a permit in a journal cannot be checked", migration=migration.id, why=error.message)
        return frozenset(found)
