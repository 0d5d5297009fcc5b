"""An agent of another version says what this controller cannot read: that costs its own host, and no other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records.projector import Pulled
from sterna.domain.errors import BadRequest, Refused, Unknown, Unreachable
from sterna.domain.journal import Entry, Role
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.sightings import News
from sterna.domain.status import Status
from sterna.ports.fleet import Taken
from tests.unit.controller.requests import ID, request

from ..domain.journals import Book
from .conftest import World
from .fakes import FakeAgent, FakeBus, uuid

OTHER = uuid(99)
NONSENSE: list[Data] = [{}, {"vms": [{"uuid": uuid(2), "state": "dreaming"}]}, {"vms": 7}]


async def never_accepted(world: World) -> None:
    """A request to `a`, then one to `b`: their sources do not say that they took them."""
    world.b.add_vm("web2", 2)
    await world.controller.inventory.vms()
    world.bus._start_migration = lambda agent, params: {}  # type: ignore[method-assign]
    world.bus.faults["start_migration"] = [Unknown("lost")] * 10
    await world.controller.migrate(request())
    await world.controller.migrate(request("web2", "a", id=OTHER))  # the newest is looked at first


async def later(world: World) -> None:
    world.clock.ms += 200_000
    await world.bus.beat(world.controller)


def write_what_nobody_knows(world: World) -> None:
    """An entry of a kind of tomorrow, in the journal of `b`."""
    book = Book(Role.SOURCE).accepted()
    known = FakeBus._journal_since

    def journal_since(agent: FakeAgent, params: Data) -> Data:
        answer = known(world.bus, agent, params)
        if agent is world.b:
            answer["entries"] = [e.model_dump(mode="json") | {"kind": "foreseen"} for e in book.entries]
        return answer

    world.bus._journal_since = journal_since  # type: ignore[method-assign]


async def test_a_journal_nobody_can_read_keeps_no_other_hosts_request_from_ending(world: World) -> None:
    await never_accepted(world)
    write_what_nobody_knows(world)
    await world.controller.follower.tidy()
    await later(world)
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(OTHER)).status is Status.QUEUED
    assert (await world.fleet.migration(ID)).status is Status.FAILED


async def test_a_request_that_cannot_be_ended_keeps_none_from_ageing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await never_accepted(world)
    pull = world.controller.projector.pull

    async def broken(host: str) -> Pulled:
        if host == "b":
            raise ZeroDivisionError("a bug")
        return await pull(host)

    monkeypatch.setattr(world.controller.projector, "pull", broken)
    await world.controller.follower.tidy()
    await later(world)
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(ID)).status is Status.FAILED
    world.bus.faults["start_migration"] = [Unknown("lost")] * 5
    await world.controller.migrate(request(id=uuid(98)))
    await world.controller.follower.tidy()
    await later(world)
    await world.controller.follower.tidy()
    assert (await world.fleet.migration(uuid(98))).status is Status.FAILED


@pytest.mark.parametrize("answer", NONSENSE)
async def test_a_list_of_vms_costs_its_own_host_only(world: World, answer: Data) -> None:
    world.c.add_vm("web3", 3)
    known = world.bus._list_vms
    world.bus._list_vms = lambda agent, params: answer if agent is world.b else known(agent, params)  # type: ignore[method-assign]
    listing = await world.controller.inventory.vms()
    assert [(v.name, v.host) for v in listing.vms] == [("web1", "a"), ("web3", "c")]
    assert (listing.silent, listing.complete) == (("b",), False)
    assert listing.why["b"].startswith("the answer of b to list_vms cannot be read")
    assert (await world.controller.inventory.find("web1")).host == "a"


async def test_a_list_the_database_cannot_hold_costs_its_own_host_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = SqlFleet.take_news

    async def picky(self: SqlFleet, told: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        if any(host == "a" for host, _ in told):
            raise BadRequest("the controller's database cannot hold that: a NUL in a name")
        return await take(self, told, asked, at)

    world.b.add_vm("web2", 2)
    monkeypatch.setattr(SqlFleet, "take_news", picky)
    listing = await world.controller.inventory.vms()
    assert ([v.name for v in listing.vms], listing.silent) == (["web2"], ("a",))
    assert "a NUL in a name" in listing.why["a"]


async def test_a_list_is_not_made_without_a_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(self: SqlFleet, told: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        raise Unreachable("the controller's database does not answer")

    monkeypatch.setattr(SqlFleet, "take_news", away)
    with pytest.raises(Unreachable):
        await world.controller.inventory.vms()


@pytest.mark.parametrize("answer", [{}, {"vm": 7}, {"vm": {"name": "web1"}}])
async def test_details_nobody_can_read_are_left_out(world: World, answer: Data) -> None:
    world.bus._show_vm = lambda agent, params: answer  # type: ignore[method-assign]
    found, details = await world.controller.inventory.show("web1")
    assert (found.host, details) == ("a", None)


@pytest.mark.parametrize("answer", NONSENSE)
async def test_an_audit_goes_on_with_the_other_hosts(world: World, answer: Data) -> None:
    await world.controller.inventory.vms()
    left = {"kind": "tap", "host": "c", "subject": "tap1", "why": "no guest", "safety": "safe"}
    world.c.leftovers = [left]
    known = world.bus._list_vms
    world.bus._list_vms = lambda agent, params: answer if agent is world.b else known(agent, params)  # type: ignore[method-assign]
    audit = world.bus._audit
    made_up = {"leftovers": [{"kind": "tap", "safety": "who knows"}]}
    world.bus._audit = lambda agent, params: made_up if agent is world.b else audit(agent, params)  # type: ignore[method-assign]
    found = await world.controller.audits.audit()
    assert [f.subject for f in found.leftovers] == ["tap1"]
    assert (found.silent, found.complete) == (("b",), False)
    assert found.why["b"].startswith("the answer of b to audit cannot be read")


@pytest.mark.parametrize("answer", [{}, {"windows": []}, {"windows": [{"dirty": 1}]}])
async def test_a_measurement_nobody_can_read_leaves_the_load_unknown(world: World, answer: Data) -> None:
    world.bus._measure_load = lambda agent, params: answer  # type: ignore[method-assign]
    plan = await world.controller.plan("web1", "b", Asked())
    assert (plan.load, plan.blockers) == (None, ())
    assert plan.load_reason.startswith("the answer of a to measure_load cannot be read")


async def test_a_vm_nobody_can_read_is_planned_for_as_it_was_shown(world: World) -> None:
    check = world.bus._check_migration
    world.bus._check_migration = lambda agent, params: check(agent, params) | {"vm": 7}  # type: ignore[method-assign]
    assert (await world.controller.plan("web1", "b", Asked())).load is not None


async def test_a_check_nobody_can_read_is_a_reason(world: World) -> None:
    world.bus._check_migration = lambda agent, params: {"refusals": [7]}  # type: ignore[method-assign]
    with pytest.raises(Refused) as raised:
        await world.controller.migrate(request(to=None))
    assert "source-down" in {r.code for r in raised.value.refusals}
    assert "cannot be read" in raised.value.message


async def test_whether_a_request_was_accepted_is_not_known_where_the_answer_cannot_be_read(world: World) -> None:
    start = world.bus._start_migration
    world.bus._start_migration = lambda agent, params: start(agent, params) and {"migration": 7}  # type: ignore[method-assign]
    record, _ = await world.controller.migrate(request())
    assert not record.accepted and "cannot be read" in record.reason
    await world.pull()
    assert (await world.fleet.migration(ID)).accepted


async def test_one_agents_answer_about_a_dead_host_keeps_no_other_from_being_asked(world: World) -> None:
    world.a.listening = False
    world.clock.ms += 10_000
    await world.bus.beat(world.controller, "b", "c")
    planned = {"id": "m1", "vm": "web1", "role": "destination", "will": "roll back"}
    world.c.shared = [planned]
    world.b.shared = [{"id": "m2", "by": "tomorrow"}]
    death = await world.controller.deaths.plan("a")
    assert ([p.id for p in death.migrations], death.silent) == (["m1"], ("b",))


async def test_one_dead_hosts_migrations_keep_no_others_from_ending(world: World) -> None:
    world.a.add_vm("web3", 3)
    await world.controller.inventory.vms()
    await world.controller.migrate(request())
    await world.controller.migrate(request("web3", "c", id=OTHER))  # the newest is looked at first
    world.a.listening = False
    world.clock.ms += 10_000
    await world.bus.beat(world.controller, "b", "c")
    endings = {"b": {"ending": "F9"}, "c": {"end": "tomorrow's word"}}
    world.bus._migration_ending = lambda agent, params: endings[agent.name]  # type: ignore[attr-defined]
    await world.controller.registry.set_dead("a", "2026-11-29T11:00:00+00:00")
    await world.controller.deaths.notify_again()
    assert (await world.fleet.migration(OTHER)).status is Status.QUEUED
    assert (await world.fleet.migration(ID)).status is Status.COMPLETED


def test_an_entry_of_tomorrow_is_one_this_version_cannot_read() -> None:
    with pytest.raises(ValueError, match="kind"):
        Entry.model_validate(Book(Role.SOURCE).accepted().entries[0].model_dump() | {"kind": "foreseen"})
