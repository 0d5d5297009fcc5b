"""From every state of a port's bindings each goal is reached, whatever was interrupted before."""

from __future__ import annotations

from itertools import product

import pytest

from sterna.domain.bindings import MIGRATING_TO, Act, Binding, Goal, Port, Subport, Verb, next_act
from sterna.domain.errors import Conflict

KINDS = (
    None,
    *({"active": a, "vif_type": t, "profile": p} for a in (True, False) for t in ("ovs", "unbound")
      for p in ({}, {MIGRATING_TO: "b"}, {MIGRATING_TO: "a"}))
)  # fmt: skip


def ports() -> list[Port]:
    """Every combination of bindings on a (the source), b (the destination) and c, at most one of them ACTIVE."""
    found = []
    for kinds in product(KINDS, KINDS, (None, {"active": False, "vif_type": "unbound", "profile": {}})):
        bindings = tuple(Binding(host=h, **k) for h, k in zip("abc", kinds, strict=True) if k)
        if sum(b.active for b in bindings) <= 1:
            found.append(Port(id="p", bindings=bindings, subports=(Subport(port_id="s", host="a"),)))
    return found


def answer(port: Port, act: Act) -> Port:
    """What the service makes of one request; it refuses (AssertionError) what Neutron refuses."""
    mine = port.on(act.host)
    others = tuple(b for b in port.bindings if b.host != act.host)
    if act.verb is Verb.MOVE_SUBPORT:
        return port.model_copy(update={"subports": (Subport(port_id=act.port_id, host=act.host),)})
    if act.verb is Verb.CREATE:
        assert mine is None
        new = Binding(host=act.host, active=port.active is None, profile={MIGRATING_TO: act.host})
        return port.model_copy(update={"bindings": (*others, new)})
    assert mine is not None
    if act.verb is Verb.DELETE:
        assert not mine.active, "an ACTIVE binding is never deleted"
        return port.model_copy(update={"bindings": others})
    if act.verb is Verb.ACTIVATE:
        assert not mine.active
        off = {"active": False, "vif_type": "unbound"}
        others = tuple(b.model_copy(update=off) if b.active else b for b in others)
        return port.model_copy(update={"bindings": (*others, mine.model_copy(update={"active": True}))})
    rest = {k: v for k, v in mine.profile.items() if k != MIGRATING_TO}
    if act.verb is Verb.MARK:
        assert mine.active
        rest[MIGRATING_TO] = "b"
    assert mine.active, "an INACTIVE binding cannot be mended"
    changed = mine.model_copy(update={"profile": rest, "vif_type": "ovs"})
    return port.model_copy(update={"bindings": (*others, changed)})


def reached(port: Port, goal: Goal) -> Port:
    for _ in range(12):
        act = next_act(port, goal, "a", "b")
        if act is None:
            return port
        port = answer(port, act)
    raise AssertionError(f"{goal} is not reached: {port}")


@pytest.mark.parametrize("port", ports(), ids=repr)
def test_every_goal_is_reached_from_everywhere(port: Port) -> None:
    prepared = reached(port, Goal.PREPARED)
    here, there = prepared.on("a"), prepared.on("b")
    assert here is not None and here.active and here.profile[MIGRATING_TO] == "b"
    assert there is not None and not there.active and there.bound and there.profile[MIGRATING_TO] == "b"
    for state in (port, prepared, reached(prepared, Goal.SWITCHED)):
        settled = reached(state, Goal.SETTLED)
        assert [(b.host, b.active, MIGRATING_TO in b.profile) for b in settled.bindings] == [("b", True, False)]
        assert [s.host for s in settled.subports] == ["b"]
    for state in (
        prepared,
        reached(prepared, Goal.SWITCHED),
        reached(reached(prepared, Goal.SWITCHED), Goal.RETURNED),
    ):
        back = reached(state, Goal.RESTORED)
        here = back.on("a")
        assert here is not None and here.active and here.bound and MIGRATING_TO not in here.profile
        assert back.on("b") is None
        assert back.on("c") == port.on("c")


def test_the_subports_come_back_as_well() -> None:
    gone = Port(id="p", bindings=(Binding(host="a", active=True),), subports=(Subport(port_id="s", host="b"),))
    assert next_act(gone, Goal.RESTORED, "a", "b") == Act(verb=Verb.MOVE_SUBPORT, host="a", port_id="s")


def test_a_port_bound_elsewhere_is_nobody_s_to_move() -> None:
    port = Port(id="p", bindings=(Binding(host="x", active=True),))
    with pytest.raises(Conflict, match="bound to x"):
        next_act(port, Goal.PREPARED, "a", "b")
    assert next_act(port, Goal.RESTORED, "a", "b") is None, "moved on since: left alone"


def test_a_binding_that_cannot_be_bound_is_given_back_all_the_same() -> None:
    lost = Binding(host="a", active=False, vif_type="unbound")
    port = Port(id="p", bindings=(lost, Binding(host="b", active=True)))
    assert next_act(port, Goal.RETURNED, "a", "b") == Act(verb=Verb.DELETE, host="a", port_id="p")
    port = Port(id="p", bindings=(Binding(host="b", active=True),))
    assert next_act(port, Goal.RETURNED, "a", "b") == Act(verb=Verb.CREATE, host="a", port_id="p")
    without = next_act(port, Goal.RETURNED, "a", "b", unbindable=["a"])
    assert without == Act(verb=Verb.MOVE, host="a", port_id="p")
