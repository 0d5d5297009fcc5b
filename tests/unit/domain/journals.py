"""Journals written by hand: what two agents would have recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.copying import CompletedJob, JobSample
from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data

MIGRATION = Migration(
    id="11111111-1111-4111-8111-111111111111",
    epoch=1,
    vm_uuid="aaaaaaaa-0000-4000-8000-000000000001",
    vm_name="web1",
    source="a",
    destination="b",
    options=MigrateRequest(vm="web1").options,
    created_at="2026-01-01T00:00:00.000Z",
)


@dataclass
class Book:
    """One host's journal of one migration; every entry takes `tick_ms`."""

    role: Role
    boot: str = "life-1"
    mono_ms: float = 1000.0
    tick_ms: float = 10.0
    migration: Migration = MIGRATION
    entries: list[Entry] = field(default_factory=list)
    first_seq: int = 1

    def write(self, kind: Kind, row: str = "", name: str = "", data: Data | None = None) -> Book:
        self.mono_ms += self.tick_ms
        self.entries.append(
            Entry(
                seq=self.first_seq + len(self.entries),
                migration_id=self.migration.id,
                epoch=self.migration.epoch,
                role=self.role,
                kind=kind,
                row=row,
                name=name,
                at=f"2026-01-01T00:00:{int(self.mono_ms / 1000) % 60:02d}.{int(self.mono_ms) % 1000:03d}Z",
                mono_ms=self.mono_ms,
                boot=self.boot,
                data=data or {},
            )
        )
        return self

    def accepted(self) -> Book:
        return self.write(Kind.ACCEPTED, data=self.migration.model_dump())

    def step(self, *rows: str, data: Data | None = None) -> Book:
        for row in rows:
            self.intent(row).done(row, data)
        return self

    def intent(self, row: str) -> Book:
        return self.write(Kind.INTENT, row)

    def done(self, row: str, data: Data | None = None) -> Book:
        return self.write(Kind.DONE, row, data=data)

    def failed(self, row: str, error: SternaError, *, final: bool) -> Book:
        return self.write(Kind.FAILED, row, data={"error": error.to_wire(), "final": final})

    def note(self, row: str, data: Data | None = None) -> Book:
        return self.write(Kind.NOTE, row, data=data)

    def sample(self, **facts: int) -> Book:
        return self.note("M3", {"sample": JobSample(**facts).model_dump()})

    def status(self, status: str, reason: str = "") -> Book:
        return self.write(Kind.STATUS, data={"status": status, "reason": reason})

    def restart(self) -> Book:
        self.boot = f"life-{int(self.boot[-1]) + 1}"
        self.mono_ms = 5.0
        return self

    def end(self) -> Book:
        return self.write(Kind.RELEASED).write(Kind.CLOSED)


JOB = CompletedJob(
    total_ms=1500,
    downtime_ms=48,
    downtime_net_ms=31,
    memory_processed=300 * 2**20,
    memory_total=512 * 2**20,
    iterations=3,
)


def good_source(migration: Migration = MIGRATION, first_seq: int = 1) -> Book:
    book = Book(Role.SOURCE, migration=migration, first_seq=first_seq)
    book.accepted().status("preparing").step("P1", "P2", "P3").note("P11").step("P12")
    book.status("migrating").step("M1", "M2").intent("M4")
    book.sample(iteration=1, memory_processed=100 * 2**20, memory_remaining=400 * 2**20, memory_total=512 * 2**20)
    book.sample(iteration=2, memory_processed=290 * 2**20, memory_remaining=10 * 2**20, memory_total=512 * 2**20)
    book.done("M4").note("M5").status("post-migrating")
    book.step("F1", "F2", "F3", "F4", "F5", "F10", "F11").status("completed")
    return book.end()


def good_destination(migration: Migration = MIGRATION, first_seq: int = 1) -> Book:
    book = Book(Role.DESTINATION, boot="dest-1", mono_ms=777_000.0, migration=migration, first_seq=first_seq)
    book.accepted().step("P4", "P5").note("P6").step("P7", "P8", "P9", "P10").note("P11")
    f8 = {"host": migration.destination, "power_state": "running", "task_state": None, "job": JOB.model_dump()}
    return book.step("F6", "F7").step("F8", data=f8).step("F9").end()
