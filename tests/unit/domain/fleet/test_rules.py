"""Placement rules: which make sense, what they mean for the VMs there are, and what they have against a move."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.ranking import rank
from sterna.domain.fleet.rule_checks import Judge, Placed, RuleFacts, down_together, problems
from sterna.domain.fleet.rules import (
    Resolved,
    Rule,
    RuleKind,
    VmNames,
    orders,
    refuse_contradiction,
    resolve,
    well_formed,
)
from sterna.domain.fleet.snapshot import Apart, HostGroup, Moving, Rules, Scope, Snapshot, Together
from sterna.domain.policies import May
from tests.unit.domain.fleet.fleets import fleets

UUID = "aaaaaaaa-0000-4000-8000-00000000000"
K = RuleKind


def rule(kind: RuleKind, name: str = "web", **more: Any) -> Rule:
    return Rule.model_validate({"name": name, "kind": kind} | more)


def apart(*vms: str, **more: Any) -> Rule:
    return rule(K.APART, vms=vms, **more)


# ---------------------------------------------------------------- which make sense

WRONG: dict[str, tuple[Rule, str]] = {
    "one VM apart": (apart("x1"), "a rule of the kind apart names at least 2 VMs; this one names 1"),
    "the same VM twice": (apart(UUID + "1", UUID.upper() + "1"), "at least 2 VMs; this one names 1"),
    "hosts apart": (apart("x1", "x2", hosts=("a",)), "a rule of the kind apart names no hosts"),
    "no host": (rule(K.ONLY_ON, vms=("x1",)), "names at least 1 host; this one names 0"),
    "no VM": (rule(K.NEVER_MOVE), "names at least 1 VM; this one names 0"),
    "a scope": (rule(K.TOGETHER, vms=("x1", "x2"), scope=Scope.HOST), "a rule of the kind together has no scope"),
    "a priority": (rule(K.NEVER_MOVE, vms=("x1",), priority=1), "of the kind never-move has no priority"),
    "no priority": (rule(K.PRIORITY, vms=("x1",)), "the priority is missing"),
    "one host": (rule(K.NOT_DOWN_TOGETHER, hosts=("a",)), "names at least 2 hosts; this one names 1"),
    "VMs of a rack": (rule(K.FAILURE_DOMAIN, hosts=("a",), vms=("x1",)), "names no VMs"),
}


@pytest.mark.parametrize("wrong, said", WRONG.values(), ids=list(WRONG))
def test_a_rule_that_makes_no_sense_is_refused_with_a_fix(wrong: Rule, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        well_formed(wrong)
    assert refused.value.fix


def test_a_rule_is_kept_in_one_form() -> None:
    kept = well_formed(apart("x2", UUID.upper() + "1", "x2", "X1"))
    assert (kept.vms, kept.scope) == (("X1", UUID + "1", "x2"), Scope.HOST)
    assert well_formed(kept) == kept
    later = kept.model_copy(update={"changed_by": "token:ops", "changed_at": "2026"})
    assert later.orders_the_same(kept) and not later.orders_the_same(kept.model_copy(update={"reason": "why"}))


def test_rules_that_contradict_each_other_are_refused() -> None:
    old = apart("x1", "x2", "x3", name="web")
    refuse_contradiction(rule(K.TOGETHER, "pair", vms=("x1", "y")), [old])
    refuse_contradiction(rule(K.TOGETHER, "web", vms=("x1", "x2")), [old])  # it replaces it
    with pytest.raises(Conflict, match="the rule web keeps x2 and x3 apart") as refused:
        refuse_contradiction(rule(K.TOGETHER, "pair", vms=("x2", "x3")), [old])
    assert "sterna rules show web" in refused.value.fix
    rack = rule(K.FAILURE_DOMAIN, "r1", hosts=("a", "b"))
    with pytest.raises(Conflict, match="the rule r1 has b in another failure domain"):
        refuse_contradiction(rule(K.FAILURE_DOMAIN, "r2", hosts=("b", "c")), [rack])


def test_a_vm_is_the_same_by_name_and_by_uuid() -> None:
    names = VmNames([(UUID + "1", "x1"), (UUID + "2", "x2")])
    with pytest.raises(Conflict, match="the rule web keeps x1 and x2 apart"):
        refuse_contradiction(rule(K.TOGETHER, "pair", vms=(UUID + "1", UUID + "2")), [apart("x1", "x2")], names)
    refuse_contradiction(rule(K.TOGETHER, "pair", vms=(UUID + "1", "y")), [apart("x1", "x2")], names)


def test_rules_that_leave_a_vm_no_host_are_refused() -> None:
    only = rule(K.ONLY_ON, "only", vms=("x1",), hosts=("a", "b"))
    names = VmNames([(UUID + "1", "x1")])
    with pytest.raises(Conflict, match="the rule only allows x1 on a, b only") as refused:
        refuse_contradiction(rule(K.ONLY_ON, "new", vms=("x1",), hosts=("c",)), [only])
    assert "sterna rules show only" in refused.value.fix
    never = rule(K.NEVER_ON, "never", vms=(UUID + "1",), hosts=("a", "b"))
    with pytest.raises(Conflict, match="the rule only allows x1 on a, b only"):
        refuse_contradiction(never, [only], names)
    with pytest.raises(Conflict, match="the rule never forbids x1 on a, b"):
        refuse_contradiction(only, [never], VmNames([(UUID + "1", "x1")]))
    refuse_contradiction(never.model_copy(update={"hosts": ("a",)}), [only], names)
    refuse_contradiction(rule(K.NEVER_ON, "new", vms=("x2",), hosts=("a", "b")), [only])
    refuse_contradiction(rule(K.NEVER_ON, "new", vms=("x1",), hosts=("a",)), [never], names)


def test_three_rules_that_leave_a_vm_no_host_are_refused() -> None:
    only = rule(K.ONLY_ON, "only", vms=("x1",), hosts=("a", "b"))
    off_a, off_b = (rule(K.NEVER_ON, f"off-{host}", vms=("x1",), hosts=(host,)) for host in "ab")
    with pytest.raises(Conflict, match="the rules only, off-a would leave x1 no host together with this one"):
        refuse_contradiction(off_b, [only, off_a])
    refuse_contradiction(rule(K.NEVER_ON, "more", vms=("x1",), hosts=("c",)), [only, off_a, off_b])


# ---------------------------------------------------------------- what they mean

NAMES = VmNames([("u1", "x1"), ("u2", "x2"), ("u3", "x3"), ("u4", "x3")])


def test_names_stand_for_every_vm_that_has_them() -> None:
    written = [
        apart("x1", "x3", name="web", scope=Scope.DOMAIN),
        apart("x1", "gone", name="half"),
        rule(K.TOGETHER, "pair", vms=("x1", "u2")),
        rule(K.ONLY_ON, "licence", vms=("x2", "gone"), hosts=("a", "nowhere")),
        rule(K.NEVER_ON, "slow", vms=("x1",), hosts=("c",)),
        rule(K.NEVER_MOVE, "dongle", vms=("x1",), reason="USB"),
        rule(K.NEVER_MOVE, "later", vms=("x1", "x2")),
        rule(K.PRIORITY, "first", vms=("x1",), priority=5),
        rule(K.PRIORITY, "second", vms=("x1", "x2"), priority=-1),
        rule(K.NOT_DOWN_TOGETHER, "quorum", hosts=("a", "b")),
        rule(K.FAILURE_DOMAIN, "r1", hosts=("a", "b")),
    ]
    assert resolve(written, NAMES) == Resolved(
        rules=Rules(
            apart=(Apart(name="web", vms=frozenset({"u1", "u3", "u4"}), scope=Scope.DOMAIN),),
            together=(Together(name="pair", vms=frozenset({"u1", "u2"})),),
            groups=(
                HostGroup(name="licence", vms=frozenset({"u2"}), hosts=frozenset({"a", "nowhere"})),
                HostGroup(name="slow", vms=frozenset({"u1"}), hosts=frozenset({"c"}), never=True),
            ),
            never_move={"u1": "dongle (USB)", "u2": "later"},
            not_down_together=(frozenset({"a", "b"}),),
        ),
        priority_of={"u1": 5, "u2": -1},
        domain_of={"a": "r1", "b": "r1"},
    )


# ---------------------------------------------------------------- one migration

X1, X2, X3 = (Placed(uuid=f"u{n}", name=f"x{n}", host=host) for n, host in ((1, "a"), (2, "b"), (3, "c")))
RACK = rule(K.FAILURE_DOMAIN, "r1", hosts=("b", "d"))
AGAINST: dict[str, tuple[Rule, str, str]] = {
    "apart": (apart("x1", "x2"), "b", "the rule web keeps x1 apart from x2, which is on b"),
    "apart, arriving": (apart("x1", "x3"), "e", "the rule web keeps x1 apart from x3, which is being moved to e"),
    "apart in a rack": (apart("x1", "x2", scope=Scope.DOMAIN), "d", "keeps x1 apart from x2, which is on b"),
    "together": (rule(K.TOGETHER, vms=("x1", "x2")), "c", "the rule web keeps x1 with x2, which is on b"),
    "only on": (rule(K.ONLY_ON, vms=("x1",), hosts=("a", "c")), "b", "allows x1 on these hosts only: a, c"),
    "never on": (rule(K.NEVER_ON, vms=("u1",), hosts=("b",)), "b", "the rule web keeps x1 off b"),
    "never": (rule(K.NEVER_MOVE, vms=("x1",), reason="USB"), "b", "a rule keeps x1 on a: web (USB)"),
}


def said(told: Rule, target: str, *away: str, vm: Placed = X1) -> list[str]:
    placed = (X1, X2, X3.model_copy(update={"to": ("e",)}))
    facts = RuleFacts(rules=(told, RACK), placed=placed, closed=frozenset(away))
    return [one.message for one in facts.judge(vm, "abcde").against(target)]


@pytest.mark.parametrize("told, target, sentence", AGAINST.values(), ids=list(AGAINST))
def test_what_a_rule_has_against_a_migration(told: Rule, target: str, sentence: str) -> None:
    (found,) = said(told, target)
    assert sentence in found


def test_what_rules_have_nothing_against() -> None:
    assert said(apart("x1", "x2"), "d") == []
    assert said(rule(K.TOGETHER, vms=("x1", "x2")), "b") == []
    assert said(rule(K.TOGETHER, vms=("x1", "x2")), "c", "b") == []  # x2's host is being emptied
    assert said(rule(K.ONLY_ON, vms=("x1",), hosts=("a", "c")), "c") == []
    assert said(apart("x2", "x3"), "b") == []
    assert said(apart("x1", "x2"), "c", vm=X2) == []


@given(fleets(), st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_what_the_planner_has_against_it(snapshot: Snapshot, data: st.DataObject) -> None:
    if not snapshot.vms:
        return
    vm = data.draw(st.sampled_from(snapshot.vms))
    others = [one for one in snapshot.vms if one.uuid != vm.uuid]
    names = [host.name for host in snapshot.hosts]
    some = (
        data.draw(st.lists(st.sampled_from(others), max_size=3, unique_by=lambda one: one.uuid)) if others else []
    )
    to = {one.uuid: data.draw(st.sampled_from(names)) for one in some}
    moving = tuple(Moving(vm=uuid, target=target) for uuid, target in to.items())
    ranking = rank(snapshot.model_copy(update={"moving": moving}), vm.uuid)
    placed = [
        Placed(uuid=one.uuid, name=one.name, host=one.host, to=(to[one.uuid],) if one.uuid in to else ())
        for one in snapshot.vms
    ]
    me = next(one for one in placed if one.uuid == vm.uuid)
    domains = {host.name: host.domain for host in snapshot.hosts}
    away = [host.name for host in snapshot.hosts if host.closed]
    judge = Judge(Resolved(rules=snapshot.rules, domain_of=domains), placed, me, away)
    for choice in ranking.choices:
        found = judge.against(choice.host)
        planner = any("the rule" in why for why in choice.refusals)
        assert bool([one for one in found if one.code == "placement-rule"]) is planner, (found, choice)


# ---------------------------------------------------------------- hosts, and what is wrong with a rule


def test_hosts_that_are_not_to_be_down_together() -> None:
    rules = [rule(K.NOT_DOWN_TOGETHER, "quorum", hosts=("a", "b", "c")), apart("x1", "x2")]
    assert down_together(rules, ["a"], {}) == down_together(rules, ["d", "e"], {"a": "is in maintenance"}) == []
    assert down_together(rules, ["a"], {"a": "is in maintenance"}) == []
    (both,) = down_together(rules, ["a", "b"], {})
    assert both.message == "the rule quorum keeps a, b from being down together" and both.fix
    (second,) = down_together(rules, ["a"], {"b": "is in maintenance"})
    assert second.message == "the rule quorum keeps a, b from being down together; b is in maintenance"
    assert second.code == "hosts-down-together"


PROBLEMS: dict[str, tuple[Rule, list[str]]] = {
    "nothing": (apart("x1", "x3"), []),
    "names that nothing has": (
        rule(K.ONLY_ON, vms=("x1", "gone"), hosts=("a", "nowhere")),
        ["there is no host nowhere", "there is no VM gone"],
    ),
    "a name that two have": (
        rule(K.NEVER_MOVE, vms=("twin",)),
        ["twin is the name of 2 VMs: the rule is about all of them"],
    ),
    "apart": (apart("x1", "x2"), ["it is broken: x1, x2 are on a"]),
    "apart in a rack": (
        apart("x1", "x3", scope=Scope.DOMAIN),
        ["it is broken: x1, x3 are in the failure domain r1"],
    ),
    "no domain": (
        apart("x1", "x4", scope=Scope.DOMAIN),
        ["in no failure domain, and one each: d"],
    ),
    "together": (rule(K.TOGETHER, vms=("x1", "x3")), ["it is broken: x1 is on a, x3 is on b"]),
    "only on": (rule(K.ONLY_ON, vms=("x1", "x3"), hosts=("a",)), ["it is broken: x3 is on b"]),
    "never on": (rule(K.NEVER_ON, vms=("x1", "x3"), hosts=("a",)), ["it is broken: x1 is on a"]),
}


@pytest.mark.parametrize("told, sentences", PROBLEMS.values(), ids=list(PROBLEMS))
def test_what_is_wrong_with_a_rule_now(told: Rule, sentences: list[str]) -> None:
    every = {"x1": "a", "x2": "a", "x3": "b", "x4": "d"}
    placed = [Placed(uuid=f"u{name}", name=name, host=host) for name, host in every.items() if name in told.vms]
    placed += [Placed(uuid=f"twin{n}", name="twin", host="a") for n in (1, 2) if "twin" in told.vms]
    assert problems(told, placed, {"a", "b"}, {"a": "r1", "b": "r1"}) == sentences


# ---------------------------------------------------------------- plans


@given(fleets(least_hosts=3), st.data())
@settings(max_examples=100, deadline=None)
def test_a_drain_parts_no_vms_that_have_to_be_together(snapshot: Snapshot, data: st.DataObject) -> None:
    """Also where an earlier plan, made without the rule, sent them elsewhere."""
    if not snapshot.vms:
        return
    fullest, _ = Counter(vm.host for vm in snapshot.vms).most_common(1)[0]
    drain = Drain(hosts=frozenset({fullest}), may=frozenset({May.POSTCOPY}))
    inside = [vm.uuid for vm in snapshot.vms if vm.host == fullest]
    every = st.sampled_from([vm.uuid for vm in snapshot.vms])
    some = data.draw(st.frozensets(st.sampled_from(inside), min_size=min(2, len(inside)), max_size=3))
    some |= data.draw(st.frozensets(every, max_size=1))
    rules = snapshot.rules.model_copy(update={"together": (Together(name="all", vms=some),)})
    alone = snapshot.rules.model_copy(update={"together": ()})
    before = plan(snapshot.model_copy(update={"rules": alone}), drain) if data.draw(st.booleans()) else None
    made = plan(snapshot.model_copy(update={"rules": rules}), drain, before)
    at = {vm.uuid: vm.host for vm in snapshot.vms} | {move.vm: move.target for move in made.moves}
    opened = {host.name for host in snapshot.hosts if not host.closed} - drain.hosts
    for uuid in some & {move.vm for move in made.moves}:
        mates = {at[other] for other in some - {uuid}} & opened
        assert not mates or at[uuid] in mates, made.moves


def test_what_rules_order_about_places() -> None:
    one = Rule(name="one", kind=RuleKind.APART, vms=("a", "b"), scope=Scope.HOST)
    rack = Rule(name="rack", kind=RuleKind.FAILURE_DOMAIN, hosts=("h1", "h2"))
    first = Rule(name="first", kind=RuleKind.PRIORITY, vms=("a",), priority=1)
    assert orders([one, rack]) == orders([rack, one, first])
    same = one.model_copy(update={"name": "two", "reason": "two databases", "changed_at": "2026-01-01"})
    assert orders([same, rack]) == orders([one, rack])
    for other in (
        [one],
        [one.model_copy(update={"vms": ("a", "c")}), rack],
        [one.model_copy(update={"scope": Scope.DOMAIN}), rack],
        [one, rack.model_copy(update={"hosts": ("h1",)})],
    ):
        assert orders(other) != orders([one, rack])
