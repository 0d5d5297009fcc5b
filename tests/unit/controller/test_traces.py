"""Traces of migrations that have ended: which are sent, when, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from sterna.adapters.traces import OtlpReceiver
from sterna.controller.controller import Controller
from sterna.controller.records import traces
from sterna.controller.records.traces import JOURNALS_MS, SENT_AGAIN_MS, TraceExport
from sterna.domain.errors import Permanent, SternaError, Undelivered, Unreachable
from sterna.domain.journal import Role
from sterna.domain.options import MigrationOptions
from sterna.ports.traces import TraceReceiver
from tests.unit.otlp_receiver import Receiver, receiving
from tests.unit.otlp_schema import Request

from ..domain.journals import Book, good_destination, good_source
from .conftest import World
from .fakes import uuid
from .requests import MOVE

AT = "2026-01-01T00:00:00+00:00"
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Collector:
    """Implements ports.traces.TraceReceiver: what it was sent, and what it raises, once each."""

    def __init__(self, *raises: SternaError) -> None:
        self.raises = list(raises)
        self.asked = 0
        self.taken: list[Request] = []

    async def send(self, body: bytes) -> None:
        self.asked += 1
        if self.raises:
            raise self.raises.pop(0)
        self.taken.append(Request.model_validate_json(body))


def exporting(world: World, receiver: TraceReceiver, controller: Controller | None = None) -> TraceExport:
    export = TraceExport(world.fleet, receiver, world.clock, "0.1.0")
    (controller or world.controller).traces = export
    return export


async def moved(world: World) -> None:
    """A migration from its request to its end, in both journals."""
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


async def test_a_real_receiver_gets_it_once(world: World, receiver: Receiver) -> None:
    export = exporting(world, OtlpReceiver(receiver.address))
    await moved(world)
    assert receiver.requests == []  # nothing is sent while journals are read
    await export.look()
    await export.look()
    (request,) = receiver.requests
    root = request.spans[0]
    assert root.told["sterna.outcome"] == "completed" and root.told["sterna.migration.id"] == MOVE.id
    assert {span.told.get("host.name") for span in request.spans} == {None, "a", "b"}


async def test_it_waits_for_the_other_hosts_journal(world: World) -> None:
    export = exporting(world, collector := Collector())
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    await world.pull()
    await export.look()
    world.b.write(Book(Role.DESTINATION, boot="d", migration=MOVE).accepted().step("P4"))
    await world.pull()
    await export.look()
    assert collector.asked == 0
    world.clock.ms += JOURNALS_MS
    await export.look()
    assert len(collector.taken) == 1


async def test_a_host_that_stays_away_leaves_its_part_out(world: World) -> None:
    export = exporting(world, collector := Collector())
    await world.fleet.admit(MOVE, AT)
    book = Book(Role.SOURCE, migration=MOVE).accepted().status("preparing").step("P3").status("failed")
    world.a.write(book)  # its agent dies before the migration is closed
    await world.pull()
    await export.look()
    assert collector.asked == 0
    world.clock.ms += JOURNALS_MS
    await export.look()
    assert len(collector.taken) == 1 and collector.taken[0].spans[0].status.code == 2


async def test_one_of_two_controllers_sends_it(world: World) -> None:
    other = Controller(world.fleet, world.bus, world.clock)
    collector = Collector()
    exports = exporting(world, collector), exporting(world, collector, other)
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await other.projector.pull("a")
    await world.pull()
    for export in (*exports, *exports):
        await export.look()
    assert len(collector.taken) == 1


async def test_a_journal_that_is_read_again_sends_nothing_again(world: World) -> None:
    export = exporting(world, collector := Collector())
    await moved(world)
    await export.look()
    await world.fleet.reread("a")
    await world.pull()
    await export.look()
    assert len(collector.taken) == 1


async def test_what_has_not_arrived_is_sent_again(world: World) -> None:
    export = exporting(world, collector := Collector(Undelivered("away"), Undelivered("away"), Unreachable("away")))
    await moved(world)
    with capture_logs() as logs:
        for _ in range(2):
            await export.look()
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["traces cannot be sent; retrying"]
    await export.look()  # it may have arrived
    await export.look()
    assert (collector.asked, collector.taken) == (3, [])


async def test_a_receiver_that_comes_back_gets_what_has_waited(world: World) -> None:
    export = exporting(world, collector := Collector(Undelivered("away")))
    await moved(world)
    with capture_logs() as logs:
        await export.look()
        await export.look()
    assert len(collector.taken) == 1 and logs[-1]["event"] == "traces are sent again"


async def test_what_is_refused_is_not_sent_again(world: World) -> None:
    export = exporting(world, collector := Collector(Permanent("no", fix="ask")))
    await moved(world)
    with capture_logs() as logs:
        await export.look()
        await export.look()
    assert collector.asked == 1
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["event"], line["why"], line["fix"]) == ("a migration's trace was not taken", "no", "ask")


async def test_a_receiver_that_stays_away_loses_them(world: World) -> None:
    export = exporting(world, collector := Collector(Undelivered("away"), Undelivered("away")))
    await moved(world)
    await export.look()
    world.clock.ms += SENT_AGAIN_MS + 1
    with capture_logs() as logs:
        await export.look()
        await export.look()
    assert collector.asked == 2
    (line,) = [line for line in logs if line["event"] == "traces are lost"]
    assert line["number"] == 1 and "sterna show ID --trace FILE" in line["fix"]


async def test_no_more_than_so_many_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_WAITING", 1)
    export = exporting(world, collector := Collector())
    other = MOVE.model_copy(update={"id": "m2", "vm_uuid": uuid(2)})
    for move in (MOVE, other):
        await world.fleet.admit(move, AT)
    first = good_source(MOVE)
    second = (
        Book(Role.SOURCE, migration=other, first_seq=len(first.entries) + 1).accepted().status("cancelled").end()
    )
    world.a.write(first)
    world.a.write(second)
    with capture_logs() as logs:
        await world.pull()
    assert [line["number"] for line in logs if line["event"] == "traces are lost"] == [1]
    await export.look()
    assert [found.spans[0].told["sterna.migration.id"] for found in collector.taken] == ["m2"]


async def test_what_a_host_made_up_rehearsals_and_old_ends_are_not_sent(world: World) -> None:
    export = exporting(world, collector := Collector())
    options = MigrationOptions(rehearse="prepare", objective=MOVE.options.objective)
    rehearsal = MOVE.model_copy(update={"id": "m2", "vm_uuid": uuid(2), "options": options})
    await world.fleet.admit(rehearsal, AT)
    world.a.write(Book(Role.SOURCE, migration=rehearsal).accepted().status("preparing").status("cancelled").end())
    world.b.write(good_destination(MOVE))
    world.c.write(
        good_source(MOVE.model_copy(update={"id": "m3", "source": "c"}))
    )  # nobody has asked for these two
    await world.pull()
    world.clock.ms += JOURNALS_MS
    await export.look()
    assert collector.asked == 0


async def test_an_end_of_long_ago_is_not_sent(world: World) -> None:
    """The records were lost, and the journals are read again."""
    export = exporting(world, collector := Collector())
    world.clock.jump_s = 86_400 * 2
    await moved(world)
    world.clock.ms += JOURNALS_MS
    await export.look()
    assert collector.asked == 0


async def test_records_that_are_away_keep_it_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    export = exporting(world, collector := Collector())
    await moved(world)

    async def away(migration_id: str) -> None:
        raise Unreachable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.fleet, "migration", away)
        await export.look()
    assert collector.asked == 0
    await export.look()
    assert len(collector.taken) == 1
