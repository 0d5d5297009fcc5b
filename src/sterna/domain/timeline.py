"""Two journals -> one timeline: every step of both agents, in an order that can have been.

Ordered by causality alone: each journal's own order is kept, and what the destination did stands behind the
message that asked for it (P4..P11 behind P3, R5..R7 behind R4, F6..F9 behind F5). Two hosts' clocks are never
compared, and a duration is only given where both ends were seen in one life of one agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Value
from sterna.domain.rows import ROWS, phase_of


class Result(StrEnum):
    """How a line of the timeline ended."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    RETRYING = "retrying"
    """Failed at least once and will be tried again."""
    INTERRUPTED = "interrupted"
    """Its agent died while it ran, and nothing more is known of it."""
    NOTED = "noted"
    """Something seen or sent, without a beginning and an end of its own."""


class What(StrEnum):
    """What a line of the timeline is about."""

    STEP = "step"
    NOTE = "note"
    STATUS = "status"
    RESTART = "restart"
    """The agent came back with another life: durations across this line are unknown."""
    MARK = "mark"
    """Accepted, turned back (with the error), released, closed."""


class Item(Value):
    """One line of the timeline."""

    host: str
    role: Role
    what: What
    row: str = ""
    name: str = ""
    started_at: str
    """ISO 8601 UTC, the host's own clock."""
    duration_ms: float | None = None
    """None where the beginning and the end were not seen in one life of the agent."""
    ended_at: str = ""
    """As `started_at`; '' where its end is not in the journal, or it has none."""
    result: Result
    tries: int = 1
    """How often it was tried, the last time included."""
    restarts: int = 0
    """How often its agent was restarted while it ran."""
    error: Data | None = None
    """The last error on the wire (`code`, `message`, `fix`), kept even where a later try went well."""
    status: str = ""
    reason: str = ""
    data: Data = {}


@dataclass
class _Open:
    """A step whose end has not been read yet."""

    index: int
    intent: Entry
    restarts: int = 0
    failures: int = 0
    error: Data | None = None


def _key(entry: Entry) -> tuple[str, str]:
    return entry.row, entry.name


@dataclass
class _Reader:
    """Reads one host's journal in order."""

    host: str
    items: list[Item] = field(default_factory=list)
    open: dict[tuple[str, str], _Open] = field(default_factory=dict)
    """By row and step name: some rows are several steps."""
    boot: str = ""
    closed: bool = False

    def read(self, entry: Entry) -> None:
        """Take the next entry."""
        if self.boot and entry.boot != self.boot:
            self._restart(entry)
        self.boot = entry.boot
        match entry.kind:
            case Kind.INTENT:
                self._begin(entry)
            case Kind.DONE | Kind.FAILED:
                self._end(entry)
            case Kind.STATUS:
                self._add(entry, What.STATUS, Result.DONE)
            case Kind.NOTE:
                self._add(entry, What.NOTE, Result.NOTED)
            case _:
                self.closed = self.closed or entry.kind is Kind.CLOSED
                self._add(entry, What.MARK, Result.DONE)

    def finish(self) -> list[Item]:
        """All items; steps left open end as running or interrupted."""
        for key in list(self.open):
            self._leave(self.open.pop(key))
        return self.items

    def _restart(self, entry: Entry) -> None:
        self._add(entry, What.RESTART, Result.NOTED)
        for pending in self.open.values():
            pending.restarts += 1

    def _begin(self, entry: Entry) -> None:
        if _key(entry) in self.open:  # the same step again, after a restart or a failed try
            return
        self.open[_key(entry)] = _Open(index=len(self.items), intent=entry)
        self._add(entry, What.STEP, Result.RUNNING)

    def _end(self, entry: Entry) -> None:
        if _key(entry) not in self.open:
            self._begin(entry)
            self.open[_key(entry)].restarts += 1  # its intent was not seen in this life: no duration
        pending = self.open[_key(entry)]
        if entry.kind is Kind.FAILED:
            pending.failures += 1
            pending.error = dict(entry.data.get("error") or {})
            if not entry.data.get("final", False):
                return
        self._settle(pending, entry)
        del self.open[_key(entry)]

    def _settle(self, pending: _Open, entry: Entry) -> None:
        failed = entry.kind is Kind.FAILED
        timed = entry.boot == pending.intent.boot and not pending.restarts
        self.items[pending.index] = self.items[pending.index].model_copy(
            update={
                "result": Result.FAILED if failed else Result.DONE,
                "duration_ms": round(entry.mono_ms - pending.intent.mono_ms, 3) if timed else None,
                "ended_at": entry.at,
                "tries": max(1, pending.failures + (0 if failed else 1)),
                "restarts": pending.restarts if pending.intent is not entry else 0,
                "error": pending.error,
                "data": entry.data,
            }
        )

    def _leave(self, pending: _Open) -> None:
        result = Result.RETRYING if pending.failures else Result.RUNNING
        if self.closed or (pending.restarts and not pending.failures):
            result = Result.INTERRUPTED
        self.items[pending.index] = self.items[pending.index].model_copy(
            update={
                "result": result,
                "tries": max(1, pending.failures),
                "restarts": pending.restarts,
                "error": pending.error,
            }
        )

    def _add(self, entry: Entry, what: What, result: Result) -> None:
        row = ROWS.get(entry.row)
        name = entry.kind.value if what is What.MARK else entry.name or (row.label if row else entry.kind.value)
        status = what is What.STATUS
        self.items.append(
            Item(
                host=self.host,
                role=entry.role,
                what=what,
                row="" if what is What.RESTART else entry.row,
                name="agent restarted" if what is What.RESTART else name,
                started_at=entry.at,
                result=result,
                status=str(entry.data.get("status", "")) if status else "",
                reason=str(entry.data.get("reason", "")) if status else "",
                error=dict(entry.data["error"])
                if entry.kind is Kind.COMPENSATING and "error" in entry.data
                else None,
                data=entry.data if what in (What.NOTE, What.STATUS) else {},
            )
        )


_BEHIND: dict[str, tuple[str, ...]] = {
    "P": ("P3",),
    "M": ("M4", "M3", "M1", "P3"),
    "F": ("F5", "M5", "M4"),
    "R": ("R4", "R3", "R0"),
    "R0": ("R0",),
    "R3": ("R3", "R0"),
}
"""Rows of the source, best first, behind which the destination's rows stand; by row, else by phase."""


def causes_of(row: str) -> tuple[str, ...]:
    """Rows of the source, best first, one of which has asked for this row of the destination."""
    return _BEHIND.get(row) or _BEHIND.get(phase_of(row), ())


def _merge(source: Sequence[Item], destination: Iterable[Item]) -> list[Item]:
    """Put each destination item behind the source item that caused it, keeping both orders."""
    last: dict[str, int] = {}
    for index, item in enumerate(source):
        if item.row and item.what in (What.STEP, What.NOTE):
            last[item.row] = index
    behind: list[list[Item]] = [[] for _ in range(len(source) + 1)]
    at = min(last.get("P3", len(source) - 1), len(source) - 1)
    for item in destination:
        rows = causes_of(item.row)
        found = next((last[row] for row in rows if row in last), None)
        if rows and found is None:
            found = len(source) - 1  # no entry of the source is known to have requested it
        at = max(at, found) if found is not None else at
        behind[at + 1].append(item)
    merged = list(behind[0])
    for index, item in enumerate(source):
        merged += [item, *behind[index + 1]]
    return merged


def build_timeline(migration: Migration, entries: Iterable[Entry]) -> tuple[Item, ...]:
    """The timeline of one migration from both hosts' entries, given in any order.

    Within each host entries are read by `seq`. Entries of other migrations are ignored.
    """
    readers = {Role.SOURCE: _Reader(migration.source), Role.DESTINATION: _Reader(migration.destination)}
    own = [e for e in entries if e.migration_id == migration.id]
    for entry in sorted(own, key=lambda e: e.seq):
        readers[entry.role].read(entry)
    return tuple(_merge(readers[Role.SOURCE].finish(), readers[Role.DESTINATION].finish()))
