"""What hosts say of their VMs, as the records keep it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from sqlalchemy import JSON, TableClause, column, create_engine, insert, update
from sqlalchemy import table as sql_table

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records.projector import apply
from sterna.domain.hosts import VmSummary
from sterna.domain.journal import Role
from sterna.domain.model import GuestState
from sterna.domain.sightings import Mark, News, text_of
from sterna.domain.status import Status
from sterna.kit.digests import digest_of
from sterna.ports.fleet import Taken, VmPage
from tests.contract.records import AT, accepted, batch, facts, move, saw, seen, upgrade_to, uuid
from tests.unit.domain.journals import Book

LATER = "2026-01-01T00:00:05+00:00"
ON, OFF, PAUSED = GuestState.RUNNING, GuestState.SHUTOFF, GuestState.PAUSED


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    for number, name in enumerate("abc"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


class Agent:
    """Counts the changes of one host's VMs."""

    def __init__(self, fleet: SqlFleet, host: str) -> None:
        self._fleet, self._host, self._seq = fleet, host, 0
        self.vms: dict[str, VmSummary] = {}

    def mark(self) -> Mark:
        return Mark(boot="life-1", seq=self._seq, digest=digest_of(text_of(self.vms.values())))

    def news(self, *seen: VmSummary, gone: Sequence[int] = ()) -> News:
        self._seq += 1
        self.vms |= {vm.uuid: vm for vm in seen}
        for n in gone:
            del self.vms[uuid(n)]
        return News(mark=self.mark(), whole=False, seen=seen, gone=tuple(map(uuid, gone)))

    def whole(self) -> News:
        self._seq = self._seq or 1
        return News(mark=self.mark(), whole=True, seen=tuple(self.vms.values()))

    async def tell(self, *seen: VmSummary, gone: Sequence[int] = ()) -> Taken:
        return await self._fleet.take_news([(self._host, self.news(*seen, gone=gone))], (), LATER)

    async def list(self, *, again: bool = False) -> Taken:
        asked = {self._host} if again else set[str]()
        return await self._fleet.take_news([(self._host, self.whole())], asked, LATER)


async def agents(fleet: SqlFleet) -> tuple[Agent, Agent, Agent]:
    made = Agent(fleet, "a"), Agent(fleet, "b"), Agent(fleet, "c")
    for one in made:
        await one.list()
    return made


async def where(fleet: SqlFleet) -> list[tuple[str, str, GuestState]]:
    return [(vm.name, vm.host, vm.state) for vm in await fleet.vms()]


async def test_changes_are_taken_in_order_and_once(fleet: SqlFleet) -> None:
    a, _, _ = await agents(fleet)
    first, second = a.news(seen(1), seen(2)), a.news(seen(1, OFF), gone=[2])
    early = await fleet.take_news([("a", second)], (), AT)
    assert early.gaps == {"a"} and not await fleet.vms()
    for news in (first, first, second, first):
        assert (await fleet.take_news([("a", news)], (), AT)).gaps == frozenset()
    assert await where(fleet) == [("vm1", "a", OFF)]
    assert (await fleet.marks())["a"] == second.mark
    assert await fleet.digest_in_records("a") == digest_of(text_of(a.vms.values()))


async def test_another_life_and_a_host_without_a_list_are_gaps(fleet: SqlFleet) -> None:
    a, _, _ = await agents(fleet)
    reborn = a.news(seen(1)).model_copy(update={"mark": Mark(boot="life-2", seq=3, digest="d")})
    assert (await fleet.take_news([("a", reborn)], (), AT)).gaps == {"a"}
    assert await fleet.vms() == []
    unknown = await fleet.take_news([("nobody", a.whole())], (), AT)
    assert (unknown, await fleet.vms()) == (Taken(), []), "a host that was never accepted tells nothing"


async def test_a_whole_list_takes_away_what_is_not_in_it(fleet: SqlFleet) -> None:
    a, b, _ = await agents(fleet)
    await a.tell(seen(1), seen(2))
    await b.tell(seen(3))
    del a.vms[uuid(2)]
    await a.list()
    assert await where(fleet) == [("vm1", "a", ON), ("vm3", "b", ON)]


async def test_one_controllers_whole_does_not_undo_anothers_later_change(fleet: SqlFleet) -> None:
    a, _, _ = await agents(fleet)
    old = a.whole()
    await a.tell(seen(1))
    await fleet.take_news([("a", old)], (), AT)
    assert await where(fleet) == [("vm1", "a", ON)]


async def test_a_vm_that_moves_is_on_one_host_whoever_speaks_first(fleet: SqlFleet) -> None:
    a, b, _ = await agents(fleet)
    await a.tell(seen(1))
    came = await b.tell(seen(1))
    assert came.doubtful == {"a"}
    assert [(v.host, v.also) for v in await fleet.vms()] == [("b", ())], "not twice before a was asked"
    await a.tell(gone=[1])
    assert [(v.host, v.also) for v in await fleet.vms()] == [("b", ())]


async def test_one_that_runs_twice_is_said_to_once_its_host_was_asked_again(fleet: SqlFleet) -> None:
    a, b, _ = await agents(fleet)
    await a.tell(seen(1))
    assert (await b.tell(seen(1))).doubtful == {"a"}
    assert (await a.list(again=True)).doubtful == frozenset()
    assert [(v.host, v.also) for v in await fleet.vms()] == [("b", ("a",))]
    await b.tell(seen(1, memory_bytes=2**31))
    assert [(v.host, v.also) for v in await fleet.vms()] == [("b", ("a",))]
    assert [await names(fleet, host=host) for host in "abc"] == [["vm1"], ["vm1"], []]
    await a.tell(seen(1, OFF))
    assert [(v.host, v.also) for v in await fleet.vms()] == [("b", ())]


async def test_while_it_migrates_no_host_moves_it_and_the_journal_does(fleet: SqlFleet) -> None:
    a, b, _ = await agents(fleet)
    await a.tell(seen(1))
    await fleet.take(batch("a", accepted(move(1)).status("migrating")), apply, AT)
    assert (await b.tell(seen(1, PAUSED))).doubtful == frozenset()
    assert await where(fleet) == [("vm1", "a", ON)]
    there = Book(Role.DESTINATION, migration=move(1)).accepted()
    there.done("F8", {"power_state": "running", "host": "b"})
    await fleet.take(batch("b", there), apply, LATER)
    assert await where(fleet) == [("vm1", "b", ON)]
    ended = accepted(move(1)).status("migrating").status("post-migrating").status("completed").end()
    await fleet.take(batch("a", ended), apply, LATER)
    [vm] = await fleet.vms()
    assert (vm.host, vm.state, vm.migration_id, vm.also) == ("b", ON, None, ()), "what a said before is old"
    await b.tell(seen(1))
    assert (await a.tell(gone=[1])).doubtful == frozenset()
    assert await where(fleet) == [("vm1", "b", ON)]


async def test_what_hosts_said_meanwhile_counts_when_the_migration_lets_go(fleet: SqlFleet) -> None:
    a, b, _ = await agents(fleet)
    await a.tell(seen(1), seen(2), seen(3))
    for n in (1, 2, 3):
        await fleet.admit(move(n), AT)
    await a.tell(gone=[1, 2])
    await b.tell(seen(1))
    assert [v.host for v in await fleet.vms()] == ["a", "a", "a"]
    for n in (1, 2, 3):
        await fleet.settle(f"m{n}", Status.FAILED, "never accepted", LATER)
    assert await where(fleet) == [("vm1", "b", ON), ("vm3", "a", ON)]


async def test_a_vm_of_a_host_that_told_nothing_is_not_forgotten(fleet: SqlFleet) -> None:
    await fleet.admit(move(1), AT)
    await fleet.withdraw("m1", "refused", LATER)
    assert [(v.name, v.host) for v in await fleet.vms()] == [("vm1", "a")]


async def names(fleet: SqlFleet, **page: object) -> list[str]:
    return [vm.name for vm in await fleet.page_of_vms(VmPage.model_validate(page))]


async def test_pages_are_made_in_the_database(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(n, name=name) for n, name in enumerate(["C", "a_3", "a1"])], AT)
    await saw(fleet, "b", [seen(10, OFF, name="aB"), seen(11, name="a1")], AT)
    assert await names(fleet) == ["C", "a1", "a1", "aB", "a_3"]
    assert await names(fleet, limit=2) == ["C", "a1"]
    assert await names(fleet, after=("a1", uuid(2))) == ["a1", "aB", "a_3"]
    assert await names(fleet, host="b") == ["a1", "aB"]
    assert await names(fleet, name="a_") == ["a_3"]
    assert await names(fleet, states=["shutoff"]) == ["aB"]
    assert await names(fleet, states=["running"], silent=["b"]) == ["C", "a1", "a_3"]
    assert await names(fleet, states=["unknown"], silent=["b"]) == ["a1", "aB"]
    assert await names(fleet, states=["shutoff", "unknown"], silent=["a"], host="b") == ["aB"]


async def test_records_of_the_version_before_are_kept(database: str) -> None:
    """A controller that was upgraded shows the VMs as last seen until their hosts have told of them."""
    upgrade_to(database, "0002")
    engine = create_engine(database)
    host = facts("a").model_dump(mode="json")
    with engine.begin() as c:
        row = {"name": "a", "host_uuid": facts("a").host_uuid, "maintenance": True, "cursor": 7, "mark": "m"}
        document = {"facts": host, "seen_at": AT, "boot": "life-1"}
        c.execute(insert(_old("hosts", *row, "generation")).values(row | {"generation": 1, "document": document}))
        vm = {"uuid": uuid(1), "name": "vm1", "host": "a", "migration_id": None}
        c.execute(insert(_old("vms", *vm)).values(vm | {"document": {k: vm[k] for k in ("uuid", "name", "host")}}))
        c.execute(update(_old("vms")).values(document=vm | {"state": "running", "observed_at": AT}))
    engine.dispose()
    fleet = SqlFleet.open(database)
    assert ((await fleet.host("a")).maintenance, (await fleet.host("a")).cursor) == (True, 7)
    assert await where(fleet) == [("vm1", "a", ON)]
    await Agent(fleet, "a").list()
    assert not await fleet.vms() and (await fleet.marks()).keys() == {"a"}
    await fleet.close()


def _old(table: str, *columns: str) -> TableClause:
    return sql_table(table, *(column(name) for name in columns), column("document", JSON))
