"""The journal of one simulated agent: what `ports.records.Journal` promises, as far as these agents need it.

Kept as the lines that `journal_since` sends. It outlives the agent, as a file does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sterna.domain.errors import Conflict
from sterna.domain.journal import JOURNAL_VERSION, Kind, Migration, Role
from sterna.domain.model import Data
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope

PAGE = 500
"""Lines at once, at most, as a real agent has it."""


@dataclass
class Half:
    """One migration, as one host has it."""

    migration: Migration
    role: Role
    wire: Data
    """The migration as it is sent."""
    held: bool = True
    closed: str | None = None
    """The row that closed it; None: it is open."""
    status: str = ""
    """The last one that this half has written."""


class SimJournal:
    """One host's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.boot = ""
        self.lines: list[Data] = []
        self.halves: dict[str, Half] = {}
        self._open: dict[str, Half] = {}
        self._holders: dict[str, str] = {}
        self._epochs: dict[str, int] = {}

    def accept(self, migration: Migration, role: Role) -> Migration:
        """See ports.records.Journal.accept."""
        newest = self._epochs.get(migration.vm_uuid, 0)
        if role is Role.SOURCE:
            migration = migration.model_copy(update={"epoch": max(newest, migration.epoch) + 1})
        elif migration.epoch <= newest:
            raise Conflict(f"epoch {migration.epoch} of {migration.vm_name} is stale: seen {newest}")
        if migration.vm_uuid in self._holders:
            raise Conflict(f"{migration.vm_name} is in migration {self._holders[migration.vm_uuid]} already")
        self._epochs[migration.vm_uuid] = migration.epoch
        half = Half(migration, role, migration.model_dump(mode="json"))
        self.halves[migration.id] = self._open[migration.id] = half
        self._holders[migration.vm_uuid] = migration.id
        self.write(migration.id, Kind.ACCEPTED, data=half.wire)
        return migration

    def write(self, id: str, kind: Kind, row: str = "", name: str = "", data: Data | None = None) -> None:
        """One more line."""
        half = self.halves[id]
        if kind in (Kind.RELEASED, Kind.CLOSED) and half.held:
            half.held = False
            self._holders.pop(half.migration.vm_uuid, None)
        if kind is Kind.CLOSED:
            half.closed = row
            self._open.pop(id, None)
        if kind is Kind.STATUS:
            half.status = (data or {})["status"]
        self.lines.append(
            {
                "v": JOURNAL_VERSION,
                "seq": len(self.lines) + 1,
                "migration_id": id,
                "epoch": half.migration.epoch,
                "role": half.role.value,
                "kind": kind.value,
                "row": row,
                "name": name,
                "at": self._clock.now().isoformat(timespec="milliseconds"),
                "mono_ms": self._clock.monotonic_ms(),
                "boot": self.boot,
                "data": data or {},
            }
        )

    def steps(self, id: str, *rows: str) -> None:
        """Each begun and done."""
        for row in rows:
            self.write(id, Kind.INTENT, row)
            self.write(id, Kind.DONE, row)

    def page(self, cursor: int, limit: int) -> Data:
        """The answer to `journal_since`."""
        lines = self.lines[cursor : cursor + min(limit, PAGE)]
        ids = dict.fromkeys(line["migration_id"] for line in lines)
        return {
            "entries": lines,
            "migrations": [self.halves[id].wire for id in ids],
            "last": lines[-1]["seq"] if lines else cursor,
        }

    def open(self) -> Iterator[Half]:
        """Halves that are not closed, oldest first."""
        yield from list(self._open.values())

    def holder(self, vm: str) -> str | None:
        """The open migration that holds this VM."""
        return self._holders.get(vm)

    def newest_epoch(self, vm: str) -> int:
        """Of this VM; 0 where none was seen."""
        return self._epochs.get(vm, 0)

    def inbox(self) -> list[Envelope]:
        """Simulated agents are sent no casts: the halves of a migration are in one process."""
        return []
