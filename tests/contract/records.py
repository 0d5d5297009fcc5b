"""What the tests of the controller's records are about, and a rule that can be held up inside a transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Protocol

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from sterna.adapters.sql import fleet_database
from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records.projector import apply
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.journal import Entry, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.sightings import News
from sterna.ports.access import Asked
from sterna.ports.fleet import Apply, Batch, Effect, MigrationRecord
from tests.unit.domain.journals import Book

AT = "2026-01-01T00:00:00+00:00"


def uuid(n: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{n:012d}"


def facts(name: str, number: int = 1) -> HostFacts:
    return HostFacts(
        name=name,
        host_uuid=f"00000000-0000-4000-8000-{number:012d}",
        address="10.0.0.1",
        libvirt_version=11_003_000,
        qemu_version=10_000_002,
        memory_total_bytes=6 * 2**40,
        memory_free_bytes=5 * 2**40,
        cpus=4,
    )


def move(n: int, vm: int | None = None, source: str = "a", to: str = "b") -> Migration:
    n_vm = vm if vm is not None else n
    return Migration(id=f"m{n}", epoch=1, vm_uuid=uuid(n_vm), vm_name=f"vm{n_vm}", source=source, destination=to)


def seen(n: int, state: GuestState = GuestState.RUNNING, **more: object) -> VmSummary:
    known = {"uuid": uuid(n), "name": f"vm{n}", "state": state, "memory_bytes": 2**30, "vcpus": 1}
    return VmSummary.model_validate(known | more)


async def saw(fleet: SqlFleet, host: str, vms: Sequence[VmSummary], at: str) -> None:
    """The whole list of one host that does not count its changes."""
    await fleet.take_news([(host, News(whole=True, seen=tuple(vms)))], (), at)


def batch(host: str, *books: Book) -> Batch:
    """Their entries, numbered as one journal."""
    entries = [e.model_copy(update={"seq": n}) for n, e in enumerate((e for b in books for e in b.entries), 1)]
    return Batch(host=host, entries=tuple(entries), migrations=tuple(b.migration for b in books))


def accepted(migration: Migration) -> Book:
    return Book(Role.SOURCE, migration=migration).accepted()


class Held:
    """The projector's rule, held up in the middle of a transaction, at one entry."""

    def __init__(self, at: str) -> None:
        self._at = at
        self._reached, self._go = threading.Event(), threading.Event()

    def __call__(self, record: MigrationRecord, host: str, entry: Entry) -> Effect:
        if entry.migration_id == self._at:
            self._reached.set()
            assert self._go.wait(20)
        return apply(record, host, entry)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 20)

    def go(self) -> None:
        self._go.set()


class Take(Protocol):
    """Takes the batch, by the projector's rule or another one."""

    def __call__(self, rule: Apply = apply) -> Coroutine[None, None, None]: ...


def taking(fleet: SqlFleet, told: Batch) -> Take:
    async def take(rule: Apply = apply) -> None:
        await fleet.take(told, rule, AT)

    return take


def asked(n: int, **more: object) -> Asked:
    told = {"at": f"2026-01-0{n}T00:00:00+00:00", "request": f"r{n}", "actor": "user:root", "role": "admin"}
    told |= {"origin": "process 1 here", "action": "migrate", "target": f"vm{n}"}
    return Asked.model_validate(told | more)


def upgrade_to(database: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(fleet_database.__file__).parent / "alembic"))
    engine = create_engine(database)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
