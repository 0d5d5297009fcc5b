"""The harness itself: a death must be a death, the journal in memory a journal, and the auditor not blind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.entries.source import DowntimeRestored
from sterna.domain.errors import Conflict, SternaError
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.migration.source.steering import RestoreDowntime, Steering
from sterna.ports.records import Envelope
from sterna.sim.libvirt import guests as fate
from sterna.sim.libvirt import qemu
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import Change, SimDomain
from tests.matrix.auditor import Auditor, Facts, facts
from tests.matrix.life import LIFE, STEP, Died
from tests.matrix.memory_journal import MemoryJournal
from tests.matrix.play import Case, play
from tests.matrix.stage import Stage


def test_a_case_is_replayed_by_its_name() -> None:
    case = Case("full", "forward", (("host1: call x/y.z before #1", "kill-3s"), ("world: a b #2", "hang-3s")))
    assert Case.named(case.name) == case


def test_after_its_death_no_finally_of_that_life_has_any_effect() -> None:
    stage, tried = Stage(), []

    async def scene() -> None:
        life = stage.lives["host1"]
        storage = stage._ports(life).storage

        async def work() -> None:
            try:
                await storage.leave_token("/srv/shared/x.img", "t")
                life.die()
                await asyncio.sleep(0)
            finally:
                tried.append("finally")
                await storage.drop_token("/srv/shared/x.img", "t")

        token = LIFE.set(life)
        task = asyncio.get_running_loop().create_task(work())
        LIFE.reset(token)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tried == ["finally"]
        assert stage.world.hosts["host1"].file("/srv/shared/.sterna-t") is not None
        with pytest.raises(Died):
            life.moment("anything")
        STEP.set("-")
        await stage.start_agent("host1")

    stage.run(scene)


def test_a_killed_agent_is_out_of_reach_and_a_new_life_answers() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.client.call("host1", "describe_host", {})
        stage.kill("host1", 2.0)
        with pytest.raises(SternaError):
            await stage.client.call("host1", "describe_host", {})
        await stage.clock.sleep(3.0)
        await stage.client.call("host1", "describe_host", {})

    stage.run(scene)


def world_with_a_guest() -> tuple[SimWorld, Auditor, str]:
    world = SimWorld(SimClock())
    world.add_host("host1")
    world.add_host("host2")
    auditor = Auditor(world)
    vm = fate.add_vm(world, "host1", "tern", disks=("shared", "iscsi"))
    auditor.remember(vm, "host1")
    return world, auditor, vm


def test_the_auditor_sees_two_copies_for_an_instant() -> None:
    world, auditor, vm = world_with_a_guest()
    other = world.hosts["host2"]
    domain = other.domains.setdefault(vm, SimDomain(vm, inactive=world.hosts["host1"].domains[vm].inactive))
    assert domain.inactive is not None
    source = domain.inactive.disks[1].iscsi
    assert source is not None
    world.admit(source.target, other.initiator, "host2")
    qemu.start(world, other, vm)
    fate.kill_qemu(world, "host2", vm)
    assert any("TWO COPIES" in text for text in auditor.findings)
    assert any("old copy" in text for text in auditor.findings)


def test_the_auditor_sees_a_lost_tap_a_lost_admission_and_a_lost_disk() -> None:
    world, auditor, vm = world_with_a_guest()
    live = world.hosts["host1"].domains[vm].live
    assert live is not None
    tap, source, path = live.nics[0].device, live.disks[1].iscsi, live.disks[0].path
    assert tap is not None and source is not None and path is not None
    world.remove_tap("host1", tap)
    world.withdraw(source.target, world.hosts["host1"].initiator, "host1")
    world.remove_file("host1", path)
    text = "\n".join(auditor.findings)
    for part in ("the tap of", "being admitted", "locked out", "was removed"):
        assert part in text


def test_the_auditor_sees_what_an_agent_touches_in_post_copy() -> None:
    world, auditor, vm = world_with_a_guest()
    here, there = (world.hosts[name] for name in ("host1", "host2"))
    world.admit("iqn.2026-11.org.sterna:tern-vdb", there.initiator, "host2")
    inactive = here.domains[vm].inactive
    assert inactive is not None
    incoming = replace(inactive, nics=())
    qemu.pause(world, here, here.domains[vm], reason="postcopy", event="suspended-postcopy")
    domain = qemu.start_incoming(world, there, vm, incoming)
    qemu.run(world, there, domain, reason="postcopy", event="resumed-postcopy")
    assert auditor.in_postcopy(vm) and auditor.findings == []
    auditor.by_agent(Change(0.0, "host1", "admission", "iqn.2026-11.org.sterna:tern-vdb", "withdrawn"))
    assert "in post-copy, admission" in auditor.findings[0]
    qemu.end(world, there, domain, reason="destroyed", event="stopped", detail="destroyed")
    assert any("the guest itself was destroyed, on host2" in text for text in auditor.findings)


def test_the_auditor_sees_what_is_left() -> None:
    world, auditor, vm = world_with_a_guest()
    before: Facts = {place: frozenset() for place in facts(world, vm)}
    auditor.verdict(vm, "host1", "host2", before, frozenset(), 0.0)
    text = "\n".join(auditor.findings)
    for part in ("live port", "admitted to", "live session", "binding", "definition", "autostart"):
        assert (part in text) is (part != "autostart")


def played_without(journaled: Kind, name: str, script: str = "forward") -> str:
    """What the auditors say when entries of this kind and name never reach the disk."""
    write = MemoryJournal.append

    def forgetful(self: MemoryJournal, migration_id: str, kind: Kind, **more: Any) -> Entry:
        entry = write(self, migration_id, kind, **more)
        if kind is journaled and more.get("name") == name:
            self.lines[-1] |= {"kind": Kind.NOTE, "name": "lost"}
        return entry

    with patch.object(MemoryJournal, "append", forgetful):
        return "\n".join(play(Case("volumes", script), again=False, limit_s=60).problems)


def test_the_auditor_of_the_journals_misses_an_intent_an_outcome_and_a_row() -> None:
    said = played_without(Kind.INTENT, "connect-volumes")
    assert "host2: connect-volumes acts, and the journal has no open intent of it" in said
    assert "host2: connect-volumes changes session" in said
    said = played_without(Kind.DONE, "connect-volumes")
    assert "host2: plug-vifs begins, and the journal has no outcome of connect-volumes" in said
    assert "host2: closed as completed destination with P4 P5 P6 P7 P8 P8 P9 P10" in said
    assert "libvirt copies, and the journal does not say" in played_without(Kind.NOTE, "copy-started")
    assert "sends call pre_live_migration" in played_without(Kind.INTENT, "pre-live-migration")
    assert "still admitted" in played_without(Kind.DONE, "remove-volume-connection", "deferred-R3")


def said_with(where: type, name: str, other: object, case: Case) -> str:
    """What is found wrong with a case when this method of the product is another one."""
    with patch.object(where, name, other):
        return "\n".join(play(case, again=False).problems)


def test_the_auditor_sees_a_longer_downtime_a_late_end_and_a_limit_that_stays() -> None:
    tell = SimHypervisor.set_max_downtime

    async def too_much(self: SimHypervisor, uuid: str, ms: int) -> None:
        await tell(self, uuid, ms * 100)

    async def nothing(*_: object) -> DowntimeRestored:
        return DowntimeRestored()

    said = said_with(SimHypervisor, "set_max_downtime", too_much, Case("throttled", "steered"))
    assert "it stood still for" in said and "500 ms were allowed" in said
    late = said_with(Steering, "_deadline_ms", lambda *_: 600_000, Case("given-up", "steered"))
    assert "s after the time it was given" in late
    left = said_with(RestoreDowntime, "do", nothing, Case("full", "failed-copy"))
    assert "LEFT on host1: a downtime limit of 100 ms" in left


Book = MemoryJournal | SqlJournal
LOOKS: tuple[Callable[[Book], Iterable[object]], ...] = (
    lambda b: b.open(),
    lambda b: b.since(0),
    lambda b: b.outbox(),
    lambda b: b.inbox(),
)
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["accept", "note", "release", "close", "out", "out-done", "in", "in-done"]),
        st.integers(0, 3),
        st.sampled_from(list(Role)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(WRITES)
def test_the_memory_journal_is_a_journal_like_the_one_on_sqlite(writes: list[tuple[str, int, Role]]) -> None:
    clock = SimClock()
    stored = SqlJournal.at(None, clock=clock, boot="boot")
    books: tuple[Book, Book] = MemoryJournal(clock), stored
    for what, number, role in writes:
        outcomes = [_write(book, what, number, role) for book in books]
        assert outcomes[0] == outcomes[1]
        for look in LOOKS:
            assert list(look(books[0])) == list(look(books[1]))
        for name in ("vm-0", "vm-1"):
            assert books[0].holder(name) == books[1].holder(name)
    stored.close()


def _write(book: Book, what: str, number: int, role: Role) -> object:
    key = str(uuid.UUID(int=number))
    cast = Envelope(id=f"{key}/x", to=f"host{number % 2}", method="m", migration_id=key, epoch=1)
    migration = Migration(
        id=key, epoch=number, vm_uuid=f"vm-{number % 2}", vm_name="t", source="a", destination="b"
    )
    try:
        match what:
            case "accept":
                return book.accept(migration, role).epoch
            case "note" | "release" | "close":
                kind = {"note": Kind.NOTE, "release": Kind.RELEASED, "close": Kind.CLOSED}[what]
                return book.append(key, kind, row="P1", name=what, data={"n": number}).seq
            case "out":
                return book.outbox_put(cast)
            case "out-done":
                book.outbox_done(cast.id)
            case "in":
                return book.inbox_put(cast)
            case _:
                book.inbox_done(cast)
        return None
    except Conflict:
        return "conflict"
    except SternaError as error:
        return type(error).__name__
