"""A controller's metrics: what they say of hosts, VMs, migrations and operations, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from sterna.adapters.metrics.exposition import Exposition, written
from sterna.controller import metrics
from sterna.controller.controller import Controller
from sterna.controller.metrics import ControllerMetrics
from sterna.controller.records import copy_progress
from sterna.domain.errors import Unknown, Unreachable
from sterna.domain.fleet.course import Order
from sterna.domain.hosts import VmSummary
from sterna.domain.journal import Role
from sterna.domain.metrics import catalogue
from sterna.domain.model import GuestState
from sterna.domain.options import MigrationOptions
from sterna.domain.status import Status
from sterna.domain.trouble import Trouble
from sterna.ports.fleet import FleetCounts
from tests.unit.controller.copying import copying, sample
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book, good_destination, good_source
from .conftest import World
from .fakes import uuid
from .operating import Stage

ORDER = {name: metric.labels for metric in catalogue.CONTROLLER for name in metric.series}
Series = dict[tuple[str, ...], float]


class Scrape:
    """What Prometheus gets: series by name and the values of their labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.series: dict[str, Series] = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                labels = tuple(one.labels[name] for name in (*ORDER.get(one.name, ()), "le") if name in one.labels)
                self.series.setdefault(one.name, {})[labels] = one.value

    def __getitem__(self, name: str) -> Series:
        return self.series.get(name, {})


async def scraped(controller: Controller, **own: object) -> Scrape:
    families = await ControllerMetrics(controller, "0.1.0", **own).families()  # type: ignore[arg-type]
    return Scrape(written(families).decode())


async def test_hosts_and_vms(world: World) -> None:
    world.b.lost = "libvirtd cannot be used"
    world.clock.ms += 6_000
    world.c.add_vm("db", 7, GuestState.PAUSED)
    await world.bus.beat(world.controller)
    await world.controller.inventory.refresh()
    await world.controller.registry.set_maintenance("c", on=True)
    found = await scraped(world.controller)
    assert found["sterna_host_state"]["a", "up"] == 1 and found["sterna_host_state"]["a", "down"] == 0
    assert found["sterna_host_state"]["b", "degraded"] == 1
    assert found["sterna_host_info"]["a", "11.3.0", "10.0.2"] == 1
    assert found["sterna_host_maintenance"] == {("a",): 0, ("b",): 0, ("c",): 1}
    assert found["sterna_host_memory_bytes"]["a",] == 16 * 2**30
    assert found["sterna_host_vms"] == {("a",): 1, ("b",): 0, ("c",): 1}
    assert found["sterna_vms"]["running",] == 1 and found["sterna_vms"]["paused",] == 1
    assert found["sterna_host_last_seen_timestamp_seconds"]["a",] == world.clock.now().timestamp()
    assert found["sterna_database_up"] == {(): 1} and found["sterna_bus_connected"] == {(): 1}


AT = "2026-01-01T00:00:00+00:00"


async def test_a_migration_is_counted_once_as_it_ends(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    await world.controller.projector.pull("a")
    before = await scraped(world.controller)
    assert before["sterna_migrations_finished_total"]["completed", "pre-copy"] == 1
    assert before["sterna_migration_downtime_seconds_count"]["pre-copy",] == 0  # its other half is not read yet
    world.b.write(good_destination(MOVE))
    await world.controller.projector.pull("b")
    found = await scraped(world.controller)
    assert found["sterna_migrations_finished_total"]["completed", "pre-copy"] == 1
    assert found["sterna_migrations_finished_total"]["failed", "pre-copy"] == 0
    assert found["sterna_migration_duration_seconds_count"]["completed",] == 1
    assert found["sterna_migration_downtime_seconds_sum"]["pre-copy",] == 0.048
    assert found["sterna_migration_downtime_seconds_bucket"]["pre-copy", "0.05"] == 1
    assert found["sterna_migration_downtime_seconds_bucket"]["pre-copy", "0.025"] == 0
    assert found["sterna_migration_phase_seconds_count"]["migrating",] == 1
    assert found["sterna_migration_moved_bytes_total"]["memory",] == 290 * 2**20  # the source's last look


async def test_two_controllers_of_a_database_count_it_once(world: World) -> None:
    """Whichever of them reads which journal."""
    other = Controller(world.fleet, world.bus, world.clock)
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.controller.projector.pull("b")
    await other.projector.pull("a")
    for controller in (world.controller, other):
        await controller.projector.pull("a")
        await controller.projector.pull("b")
    first, second = await scraped(world.controller), await scraped(other)
    for name, labels in (
        ("sterna_migrations_finished_total", ("completed", "pre-copy")),
        ("sterna_migration_downtime_seconds_count", ("pre-copy",)),
    ):
        assert first[name][labels] + second[name][labels] == 1


async def test_a_journal_that_is_read_again_counts_nothing_twice(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    await world.controller.projector.pull("a")
    await world.fleet.reread("a")
    await world.controller.projector.pull("a")
    found = await scraped(world.controller)
    assert found["sterna_migrations_finished_total"]["completed", "pre-copy"] == 1


async def test_neither_old_ends_nor_rehearsals_are_counted(world: World) -> None:
    world.clock.jump_s = 86_400 * 2
    world.a.write(good_source(MOVE))
    options = MigrationOptions(rehearse="prepare", objective=MOVE.options.objective)
    rehearsal = MOVE.model_copy(update={"id": "m2", "vm_uuid": uuid(2), "options": options})
    for asked in (MOVE, rehearsal):
        await world.fleet.admit(asked, AT)
    world.a.write(Book(Role.SOURCE, migration=rehearsal).accepted().status("preparing").status("cancelled").end())
    await world.pull()
    found = await scraped(world.controller)
    assert set(found["sterna_migrations_finished_total"].values()) == {0}


async def test_what_a_host_made_up_is_not_counted(world: World) -> None:
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    assert (await world.fleet.migration(MOVE.id)).status is Status.COMPLETED
    found = await scraped(world.controller)
    assert set(found["sterna_migrations_finished_total"].values()) == {0}
    assert found["sterna_migration_phase_seconds_count"] == {}
    assert set(found["sterna_migration_moved_bytes_total"].values()) == {0}


async def test_a_journal_has_no_series_of_its_own(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    book = Book(Role.SOURCE, migration=MOVE).accepted().status("preparing")
    for number in range(300):
        book.status(f"made-up-{number}")
    world.a.write(book.status("migrating").status("completed").end())
    await world.pull()
    found = await scraped(world.controller)
    assert found["sterna_migrations_finished_total"]["completed", "pre-copy"] == 1
    assert set(found["sterna_migration_phase_seconds_count"]) == {("queued",), ("preparing",), ("migrating",)}


@pytest.mark.parametrize("mono_ms", [-1e12, 1e300])
async def test_a_clock_that_cannot_be_spoils_no_sum(world: World, mono_ms: float) -> None:
    await world.fleet.admit(MOVE, AT)
    book = Book(Role.SOURCE, migration=MOVE).accepted().status("preparing")
    book.mono_ms = mono_ms
    with_clock = [one.model_copy(update={"mono_ms": mono_ms}) for one in book.entries[1:]]
    book.entries[1:], book.mono_ms = with_clock, 2000.0
    world.a.write(book.status("migrating").status("completed").end())
    await world.pull()
    found = await scraped(world.controller)
    assert found["sterna_migrations_finished_total"]["completed", "pre-copy"] == 1
    sums = found["sterna_migration_phase_seconds_sum"] | found["sterna_migration_duration_seconds_sum"]
    assert all(0 <= one < 1000 for one in sums.values())


async def test_a_destination_counts_no_end_while_the_source_is_alive(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("preparing"))
    world.b.write(Book(Role.DESTINATION, migration=MOVE).accepted().status("completed"))
    await world.pull()
    found = await scraped(world.controller)
    assert set(found["sterna_migrations_finished_total"].values()) == {0}


async def test_numbers_that_no_host_counts_are_not_taken(world: World) -> None:
    for odd in (float("nan"), float("inf")):
        book = Book(Role.SOURCE, migration=MOVE).accepted()
        world.a.journal[:] = [one.model_copy(update={"mono_ms": odd}) for one in book.entries]
        with pytest.raises(Unknown, match="cannot be read"):
            await world.controller.projector.pull("a")
    world.a.journal.clear()
    await copying(world)
    with pytest.raises(ValidationError):
        await world.controller.copies.sampled("a", MOVE.id, {"sample": {"memory_total": 10**400}, "at": "x"})
    assert (await scraped(world.controller))["sterna_migration_data_total_bytes"] == {}


async def test_copies_that_nobody_has_asked_for_take_no_place_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_COPIES", 1)
    monkeypatch.setattr(copy_progress, "MOST_REPORTED", 2)
    for number in range(3):
        update = {"id": f"made-up-{number}", "vm_uuid": uuid(50 + number)}
        made_up = MOVE.model_copy(update=update)
        world.a.write(Book(Role.SOURCE, migration=made_up).accepted().status("migrating"))
        await world.pull()
        await world.controller.copies.sampled("a", made_up.id, sample(1, 100))
    assert len(world.controller.copies.running()) == 2
    await world.fleet.admit(MOVE, AT)
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("migrating"))
    await world.pull()
    await world.controller.copies.sampled("a", MOVE.id, sample(1, 100))
    found = await scraped(world.controller)
    assert found["sterna_migration_processed_bytes"] == {(MOVE.vm_uuid, "web1", "a", "b"): 100}


async def test_a_copy_has_series_while_it_runs(world: World) -> None:
    await copying(world)
    await world.controller.copies.sampled("a", MOVE.id, sample(1, 100))
    found = await scraped(world.controller)
    labels = (MOVE.vm_uuid, "web1", "a", "b")
    assert found["sterna_migration_processed_bytes"] == {labels: 100}
    assert found["sterna_migration_remaining_bytes"] == {labels: 900}
    assert found["sterna_migrations"]["migrating",] == 1 and found["sterna_migrations"]["recovering",] == 0
    assert found["sterna_host_migrations"] == {("a", "out"): 1, ("b", "in"): 1}
    world.clock.ms += 61_000
    assert (await scraped(world.controller))["sterna_migration_processed_bytes"] == {}


async def test_a_name_cannot_make_lines_of_its_own(world: World) -> None:
    await copying(world)
    await world.controller.copies.sampled("a", MOVE.id, sample(1, 100))
    (copy,) = world.controller.copies._known.values()
    evil = copy.record.migration.model_copy(update={"vm_name": 'x"} 1\nsterna_database_up 0\n\x1b[2J'})
    copy.record = copy.record.model_copy(update={"migration": evil})
    found = await scraped(world.controller)
    assert found["sterna_database_up"] == {(): 1} and "\x1b" not in found.text


async def test_an_operation(stage: Stage) -> None:
    operation = (await stage.begin("a")).id
    await stage.tick()
    await stage.controller.operate.order(operation, Order.PAUSE, "token:admin")
    found = await scraped(stage.controller)
    assert found["sterna_operations"]["paused",] == 1
    assert (operation,) in found["sterna_operation_started_timestamp_seconds"]
    assert {state for _, state in found["sterna_operation_vms"]} == {"running", "waiting", "left"}


async def test_without_a_database_it_still_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> FleetCounts:
        raise Unreachable("the database does not answer")

    monkeypatch.setattr(world.fleet, "counts", away)
    found = await scraped(world.controller)
    assert found["sterna_database_up"] == {(): 0} and found["sterna_bus_connected"] == {(): 1}
    assert found["sterna_host_state"] == {} and "sterna_migrations_finished_total" in found.series


async def test_its_own_certificate(world: World) -> None:
    ends = datetime(2026, 3, 1, tzinfo=UTC)
    warned = Trouble(why="it expires", since="2026-01-01T00:00:00Z")
    found = await scraped(world.controller, expires=lambda: ends, warning=lambda: warned)
    assert found["sterna_certificate_expiry_timestamp_seconds"] == {(): ends.timestamp()}
    assert found["sterna_warning"] == {(): 1}


async def test_a_scrape_reads_the_records_a_fixed_number_of_times(world: World) -> None:
    """However many VMs and migrations there are; and its text does not grow with them."""
    few = await _cost(world)
    for n in range(100, 400):
        world.a.vms[f"aaaaaaaa-0000-4000-8000-{n:012d}"] = VmSummary(
            uuid=f"aaaaaaaa-0000-4000-8000-{n:012d}",
            name=f"vm{n}",
            state=GuestState.RUNNING,
            memory_bytes=1,
            vcpus=1,
        )
    await world.controller.inventory.refresh()
    many = await _cost(world)
    assert few[0] == many[0] == 3 and few[1] == many[1]


async def _cost(world: World) -> tuple[int, int]:
    transactions = 0
    run = world.fleet._run

    async def counted(*args: object, **more: object) -> object:
        nonlocal transactions
        transactions += 1
        return await run(*args, **more)  # type: ignore[arg-type]

    world.fleet._run = counted  # type: ignore[method-assign, assignment]
    try:
        families = await ControllerMetrics(world.controller, "0.1.0").families()
    finally:
        world.fleet._run = run  # type: ignore[method-assign]
    return transactions, sum(len(family.samples) for family in families)


async def test_all_of_the_catalogue_and_nothing_else(world: World) -> None:
    await world.controller.inventory.refresh()
    families = await ControllerMetrics(world.controller, "0.1.0").families()
    shown = [family.metric.name for family in families]
    assert sorted(shown) == sorted(metric.name for metric in catalogue.CONTROLLER)
    for family in families:
        assert all(len(labels) == len(family.metric.labels) for labels, _ in family.samples), family.metric.name


async def test_who_asks_again_at_once_gets_the_same(world: World) -> None:
    exposition = Exposition(ControllerMetrics(world.controller, "0.1.0").families, world.clock)
    first = await exposition.text()
    await world.controller.registry.set_maintenance("c", on=True)
    assert await exposition.text() is first
    world.clock.ms += 1001
    assert b'sterna_host_maintenance{host="c"} 1.0' in await exposition.text()
