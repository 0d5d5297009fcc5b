"""Rehearse a migration: a real one, whose source's agent undoes it before (or at the first sample of) the copy.

Called after `plan_migration` has found nothing in the way. It is admitted, recorded and shown like any other.
"""

from __future__ import annotations

from sterna.controller.intents.migrate_vm import MigrateVm
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.copying import JobSample
from sterna.domain.entries.notes import Rehearsed, RehearsedCopy
from sterna.domain.errors import Refused
from sterna.domain.journal import Role
from sterna.domain.model import Refusal, Value
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

PATIENCE_S = 40.0
"""How long the answer is waited for; a rehearsal takes some seconds. It ends by itself anyway."""
LOOK_EVERY_S = 0.2


class Rehearsal(Value):
    """Result of a rehearsal: every step before the copy, carried out and undone."""

    migration_id: str | None = None
    """`sterna show` displays its steps."""
    passed: bool = False
    copied: bool = False
    """A copy was started as well."""
    why: str = ""
    """How it ended, or why it has not."""
    tried: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    sample: JobSample | None = None
    """First sample of its copy."""


class RehearseMigration:
    """The intent "do everything except moving the guest"."""

    def __init__(self, fleet: Fleet, migrate: MigrateVm, clock: Clock) -> None:
        self._fleet, self._migrate, self._clock = fleet, migrate, clock

    async def start(
        self, vm: str, destination: str, asked: Asked, *, with_copy: bool, requested_by: str = ""
    ) -> MigrationRecord:
        """Placement rules do not count: the VM stays where it is. Raises as MigrateVm.start."""
        request = MigrateRequest(
            vm=vm,
            destination=destination,
            asked=asked,
            ignore_rules=True,
            rehearse="copy" if with_copy else "prepare",
            requested_by=requested_by,
        )
        record, _ = await self._migrate.start(request)
        return record

    async def result(self, started: MigrationRecord, *, with_copy: bool) -> Rehearsal:
        """How it ended; returns after `PATIENCE_S` at the latest."""
        until = self._clock.monotonic_ms() + PATIENCE_S * 1000
        while True:
            record = await self._fleet.migration(started.id)
            if record.status.final or self._clock.monotonic_ms() > until:
                return await self._read(record, with_copy)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _read(self, record: MigrationRecord, with_copy: bool) -> Rehearsal:
        history = History.read(e for e in await self._fleet.entries(record.id) if e.role is Role.SOURCE)
        rehearsed, copied = history.find(Rehearsed), history.find(RehearsedCopy)
        undone = record.status is Status.CANCELLED
        return Rehearsal(
            migration_id=record.id,
            passed=undone and rehearsed is not None and (copied is not None or not with_copy),
            copied=copied is not None,
            why=record.reason if record.status.final else f"still {record.status}: {record.reason}",
            tried=rehearsed.tried if rehearsed else (),
            refusals=rehearsed.refusals if rehearsed else (),
            sample=copied.sample if copied else None,
        )


def refused(error: Refused) -> Rehearsal:
    """One that could not even begin."""
    return Rehearsal(why=error.message, refusals=error.refusals)
