"""The controller's records of placement rules, on SQLite and on PostgreSQL: ports.rules, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Conflict, NotFound, Refused
from sterna.domain.fleet.rule_checks import Placed
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.fleet.snapshot import Scope
from sterna.domain.model import GuestState
from sterna.ports.fleet import MigrationRecord
from sterna.ports.operations import OperationRecord
from tests.contract.operation_records import FIRST, SECOND, attempt, decision, drain
from tests.contract.records import AT, facts, move, saw, seen, upgrade_to, uuid

K = RuleKind
APART = Rule(
    name="web",
    kind=K.APART,
    vms=("vm1", uuid(2)),
    scope=Scope.HOST,
    reason="two of three must run",
    changed_by="token:ops",
    changed_at=AT,
)


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    """Three hosts, and four VMs on the first."""
    fleet = SqlFleet.open(database)
    for number, name in enumerate("abc"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    await saw(fleet, "a", [seen(n) for n in (1, 2, 3, 4)], AT)
    yield fleet
    await fleet.close()


@pytest.fixture
async def other(fleet: SqlFleet, database: str) -> AsyncIterator[SqlFleet]:
    """Another controller's view of the same records."""
    other = SqlFleet.open(database)
    yield other
    await other.close()


async def write(fleet: SqlFleet, kind: RuleKind, name: str, **more: Any) -> Rule:
    told, _ = await fleet.put_rule(Rule.model_validate({"name": name, "kind": kind} | more), replace=False)
    return told


def to_b(n: int) -> Any:
    return move(n).model_copy(update={"destination": "b"})


# ------------------------------------------------------------ rules


async def test_a_rule_is_written_once_and_read_as_it_was_written(fleet: SqlFleet, other: SqlFleet) -> None:
    assert await fleet.put_rule(APART, replace=False) == (APART, True)
    assert await other.rules() == [APART] == [await fleet.rule("web")]
    again = APART.model_copy(update={"changed_by": "token:other"})
    for replace in (False, True):
        assert await other.put_rule(again, replace=replace) == (APART, False)
    assert await fleet.rules() == [APART]


async def test_a_name_is_taken_unless_the_rule_is_replaced(fleet: SqlFleet) -> None:
    await fleet.put_rule(APART, replace=False)
    new = APART.model_copy(update={"vms": ("vm3", "vm4"), "changed_by": "token:other"})
    with pytest.raises(Conflict, match="there is another rule web, of the kind apart") as refused:
        await fleet.put_rule(new, replace=False)
    assert "--replace" in refused.value.fix
    assert await fleet.put_rule(new, replace=True) == (new, False)
    assert await fleet.rules() == [new]


async def test_rules_are_listed_by_name_as_bytes(fleet: SqlFleet) -> None:
    for name in ("web", "Zoo", "apple", "web-2"):
        await write(fleet, K.NEVER_MOVE, name, vms=("vm1",))
    assert [rule.name for rule in await fleet.rules()] == ["Zoo", "apple", "web", "web-2"]


async def test_a_rule_is_removed_once(fleet: SqlFleet) -> None:
    await fleet.put_rule(APART, replace=False)
    assert await fleet.remove_rule("web") == APART
    for unknown in (fleet.remove_rule("web"), fleet.rule("web")):
        with pytest.raises(NotFound, match="no rule web"):
            await unknown


async def test_of_two_rules_that_contradict_each_other_one_is_kept(fleet: SqlFleet, other: SqlFleet) -> None:
    pair = Rule(name="pair", kind=K.TOGETHER, vms=("vm1", uuid(2)))
    answers = await asyncio.gather(
        fleet.put_rule(APART, replace=True), other.put_rule(pair, replace=True), return_exceptions=True
    )
    (refused,) = (answer for answer in answers if isinstance(answer, BaseException))
    assert isinstance(refused, Conflict) and "keeps " in refused.message
    assert len(await fleet.rules()) == 1


async def test_a_contradiction_is_found_though_one_rule_gives_names_and_the_other_uuids(fleet: SqlFleet) -> None:
    await fleet.put_rule(APART, replace=False)
    with pytest.raises(Conflict, match="the rule web keeps vm1 and vm2 apart"):
        await write(fleet, K.TOGETHER, "pair", vms=(uuid(1), "vm2"))
    await write(fleet, K.ONLY_ON, "only", vms=("vm3",), hosts=("a",))
    with pytest.raises(Conflict, match="the rule only allows vm3 on a only"):
        await write(fleet, K.NEVER_ON, "never", vms=(uuid(3),), hosts=("a",))
    assert [rule.name for rule in await fleet.rules()] == ["only", "web"]


async def test_the_table_comes_with_its_revision(database: str) -> None:
    upgrade_to(database, "0007")
    engine = create_engine(database)
    assert "rules" not in inspect(engine).get_table_names()
    engine.dispose()
    fleet = SqlFleet.open(database)
    assert await fleet.rules() == []
    await fleet.close()


# ------------------------------------------------------------ where the VMs are that they name


async def test_vms_are_found_by_name_and_uuid_with_where_they_are_moved(fleet: SqlFleet) -> None:
    taken = await fleet.take_operation((await fleet.add_operation(drain()))[0], "one")
    assert taken is not None and await fleet.decide(decision(taken, attempt(1, 0, "c")))
    await fleet.admit(move(2), AT)
    many = [f"nobody{n}" for n in range(2_000)]
    found = await fleet.placed(["vm1", uuid(2), "vm3", *many])
    assert sorted(found, key=lambda one: one.name) == [
        Placed(uuid=uuid(1), name="vm1", host="a", to=("c",)),
        Placed(uuid=uuid(2), name="vm2", host="a", to=("b",)),
        Placed(uuid=uuid(3), name="vm3", host="a"),
    ]
    assert await fleet.placed([]) == []


async def test_the_facts_of_a_vm_are_its_rules_and_the_failure_domains(fleet: SqlFleet) -> None:
    rack = await write(fleet, K.FAILURE_DOMAIN, "r1", hosts=("a", "b"))
    await write(fleet, K.NEVER_MOVE, "dongle", vms=("vm3",))
    await fleet.put_rule(APART, replace=False)
    known = await fleet.rule_facts(uuid(2), "vm2")
    assert known.rules == (APART, rack)
    assert {one.name for one in known.placed} == {"vm1", "vm2"}
    assert (await fleet.rule_facts(uuid(4), "vm4")).rules == ()


# ------------------------------------------------------------ judged where something begins


async def test_a_migration_that_a_rule_forbids_is_not_admitted(fleet: SqlFleet) -> None:
    await write(fleet, K.NEVER_ON, "slow", vms=("vm1",), hosts=("b",))
    with pytest.raises(Refused, match="the rule slow keeps vm1 off b"):
        await fleet.admit(to_b(1), AT, up="abc")
    (vm,) = await fleet.vms_called("vm1")
    assert vm.migration_id is None
    record, _ = await fleet.admit(to_b(1), AT)
    assert isinstance(record, MigrationRecord)
    assert await fleet.admit(to_b(1), AT, up="abc") == (await fleet.migration("m1"), True)  # it was accepted before


async def test_of_two_at_once_that_a_rule_keeps_apart_one_is_admitted(fleet: SqlFleet, other: SqlFleet) -> None:
    await fleet.put_rule(APART, replace=False)
    answers = await asyncio.gather(
        fleet.admit(to_b(1), AT, up="abc"), other.admit(to_b(2), AT, up="abc"), return_exceptions=True
    )
    (refused,) = (answer for answer in answers if isinstance(answer, BaseException))
    assert isinstance(refused, Refused) and refused.message.endswith("which is being moved to b")


async def test_a_rule_that_has_changed_since_makes_a_decision_out_of_date(fleet: SqlFleet) -> None:
    taken = await fleet.take_operation((await fleet.add_operation(drain()))[0], "one")
    assert taken is not None
    await fleet.put_rule(APART, replace=False)
    planned = decision(taken)
    assert not await fleet.decide(planned)
    assert await fleet.attempts(FIRST) == []
    assert await fleet.decide(planned.model_copy(update={"rules": (APART,)}))


async def test_so_does_a_migration_of_a_vm_that_a_rule_keeps_apart_in_the_same_domain(fleet: SqlFleet) -> None:
    await fleet.save_host(facts("d", 4), "life-1", AT)
    await saw(fleet, "c", [seen(7)], AT)
    rack = await write(fleet, K.FAILURE_DOMAIN, "rack", hosts=("b", "d"))
    far = await write(fleet, K.APART, "far", vms=("vm1", "vm7"), scope=Scope.DOMAIN)
    taken = await fleet.take_operation((await fleet.add_operation(drain()))[0], "one")
    assert taken is not None
    planned = decision(taken).model_copy(update={"rules": (far, rack)})
    moved, _ = await fleet.admit(move(7, source="c", to="d"), AT, up="abcd")
    assert not await fleet.decide(planned)
    assert await fleet.decide(planned.model_copy(update={"seen": frozenset({moved.id})}))


async def test_hosts_that_are_not_to_be_down_together_are_closed_one_at_a_time(
    fleet: SqlFleet, other: SqlFleet
) -> None:
    await write(fleet, K.NOT_DOWN_TOGETHER, "quorum", hosts=("a", "b", "z"))
    for wanted, up in ((drain(FIRST, "a", "b"), "abc"), (drain(FIRST, "a"), "ac")):
        with pytest.raises(Refused, match="the rule quorum keeps a, b from being down together"):
            await fleet.add_operation(wanted, up)
    assert not (await fleet.host("a")).maintenance
    answers = await asyncio.gather(
        fleet.add_operation(drain(FIRST, "a"), "abc"),
        other.add_operation(drain(SECOND, "b"), "abc"),
        return_exceptions=True,
    )
    (refused,) = (answer for answer in answers if isinstance(answer, BaseException))
    assert isinstance(refused, Refused) and refused.message.endswith(" is in maintenance")
    kept = next(answer for answer in answers if not isinstance(answer, BaseException))
    assert isinstance(kept[0], OperationRecord)
    id, host = (SECOND, "b") if kept[0].id == FIRST else (FIRST, "a")
    assert (await fleet.add_operation(drain(id, host)))[0].hosts == (host,)  # asked not to look at rules


async def test_a_vm_that_is_gone_counts_nowhere(fleet: SqlFleet) -> None:
    await fleet.put_rule(APART, replace=False)
    await saw(fleet, "b", [seen(2)], AT)
    await saw(fleet, "a", [seen(1), seen(3, GuestState.SHUTOFF)], AT)
    with pytest.raises(Refused, match="apart from vm2, which is on b"):
        await fleet.admit(to_b(1), AT, up="abc")
    await saw(fleet, "b", [], AT)
    assert not (await fleet.admit(to_b(1), AT, up="abc"))[1]
