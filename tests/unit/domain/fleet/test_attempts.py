"""What an operation has tried, and what follows for its next plan and for its undo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import Conflict
from sterna.domain.fleet.attempts import (
    MOST_REST_S,
    Attempt,
    AttemptState,
    Blame,
    blame_of,
    explained,
    marked,
    resting,
    returns,
    since_arrival,
)
from sterna.domain.fleet.course import ENDS, FINAL, UNFINISHED, OperationStatus, Order, obeying
from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.plans import LeftOver, Purpose
from sterna.domain.fleet.reasons import RETRY_S
from sterna.domain.model import Refusal
from sterna.domain.refusals import CATALOGUE, Against
from tests.unit.domain.fleet.fleets import vm

HOSTS_OF_A_PAIR = {
    "peer-unreachable",
    "stream-blocked",
    "address-not-enrolled",
    "peer-same-host",
    "no-tls",
    "transport-unencrypted",
    "network-agent-dead",
    "network-host-shared",
    "disk-not-the-same",
    "folder-not-known-as-shared",
    "epoch-not-believed",
}
"""Judged by the source, or about the VM, and yet another destination may take it."""
OPERATION = "aaaaaaaa-0000-4000-8000-000000000001"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def attempt(number: int, name: str = "x", state: AttemptState = AttemptState.FAILED, **more: object) -> Attempt:
    known = {"source": "a", "target": "b", "purpose": Purpose.EMPTY, "reason": "the link broke"}
    about = {
        "migration": f"m{number}",
        "operation": OPERATION,
        "number": number,
        "vm": name,
        "name": name,
        "state": state,
    }
    return Attempt.model_validate(about | known | {"ended_at": NOW.isoformat()} | more)


def test_failures_keep_a_vm_from_the_host_and_count() -> None:
    tried = since_arrival([attempt(0, blame=Blame.HOST), attempt(1, target="c")], undoing=False)
    (known,) = marked([vm("x", "a")], tried)
    assert (known.avoid, known.tries) == ({"b": "the link broke"}, 2)


def test_a_host_that_refuses_is_no_failure_of_the_vm() -> None:
    refused = attempt(0, state=AttemptState.REFUSED, blame=Blame.HOST, reason="no huge pages")
    tried = since_arrival([refused], undoing=False)
    (known,) = marked([vm("x", "a")], tried)
    assert (known.avoid, known.tries) == ({"b": "no huge pages"}, 0)
    assert resting(tried, NOW) == {}


def test_what_was_before_the_last_arrival_counts_no_more() -> None:
    arrived = attempt(1, state=AttemptState.ARRIVED)
    assert since_arrival([attempt(0), arrived], undoing=False) == {}
    back = attempt(2, purpose=Purpose.BACK)
    assert since_arrival([attempt(0), arrived, back], undoing=True) == {"x": [back]}
    assert since_arrival([attempt(0), back], undoing=False) == {"x": [attempt(0)]}


def test_a_vm_rests_longer_after_each_failure() -> None:
    for failures, seconds in ((1, 20), (2, 40), (3, 80)):
        tried = since_arrival([attempt(n) for n in range(failures)], undoing=False)
        before, after = (NOW + timedelta(seconds=seconds + more) for more in (-1, 0))
        again = (NOW + timedelta(seconds=seconds)).strftime("%H:%M:%S")
        assert resting(tried, before) == {
            "x": f"x did not get to b: the link broke; it is tried again at {again} UTC"
        }
        assert resting(tried, after) == {}
        assert resting(tried, NOW - timedelta(days=1)) == {}


def test_no_rest_is_longer_than_ten_minutes() -> None:
    tried = since_arrival([attempt(n) for n in range(60)], undoing=False)
    assert not resting(tried, NOW + timedelta(seconds=MOST_REST_S))


def test_one_that_runs_does_not_rest() -> None:
    assert resting(since_arrival([attempt(0, state=AttemptState.STARTED)], undoing=False), NOW) == {}


@pytest.mark.parametrize(
    "codes, blame",
    [
        (["memory-short"], Blame.HOST),
        (["memory-short", "vm-paused"], Blame.VM),
        (["destination-down"], Blame.PASSING),
        (["check-failed"], Blame.PASSING),
        (["destination-down", "memory-short"], Blame.HOST),
        (["destination-down", "vm-snapshots"], Blame.VM),
        (["source-down"], Blame.NOBODY),
        (["vm-job-active"], Blame.NOBODY),
        (["disk-job-active", "destination-down"], Blame.NOBODY),
        (["of-a-newer-version"], Blame.HOST),
        (["peer-unreachable"], Blame.HOST),
        (["network-agent-dead", "stream-blocked"], Blame.HOST),
        (["epoch-not-believed"], Blame.HOST),
    ],
)
def test_refusals_speak_against_the_host_the_vm_or_nobody(codes: list[str], blame: Blame) -> None:
    assert blame_of([Refusal(code=code, message=code) for code in codes]) is blame  # type: ignore[arg-type]


@pytest.mark.parametrize("code", sorted(HOSTS_OF_A_PAIR))
def test_what_only_this_destination_refuses_leaves_the_others(code: str) -> None:
    assert CATALOGUE[code].against is Against.HOST


def refused(number: int, target: str, blame: Blame) -> Attempt:
    return attempt(number, state=AttemptState.REFUSED, target=target, blame=blame, reason="no answer")


def test_a_host_that_cannot_be_asked_twice_is_avoided_and_other_hosts_are_not() -> None:
    tried = since_arrival([refused(0, "b", Blame.PASSING), refused(1, "c", Blame.PASSING)], undoing=False)
    assert marked([vm("x", "a")], tried)[0].avoid == {}
    tried = since_arrival([refused(n, to, Blame.PASSING) for n, to in enumerate("bcb")], undoing=False)
    (known,) = marked([vm("x", "a")], tried)
    assert (known.avoid, known.tries) == ({"b": "no answer"}, 0)


def test_what_passes_by_itself_is_waited_for_and_never_counts() -> None:
    tried = since_arrival([refused(n, "b", Blame.NOBODY) for n in range(9)], undoing=False)
    (known,) = marked([vm("x", "a")], tried)
    assert (known.avoid, known.tries) == ({}, 0)
    assert resting(tried, NOW + timedelta(seconds=MOST_REST_S - 1))
    assert not resting(tried, NOW + timedelta(seconds=MOST_REST_S))


def test_an_abort_by_a_person_does_not_count() -> None:
    aborted = [attempt(n, state=AttemptState.CANCELLED, reason="") for n in range(5)]
    tried = since_arrival(aborted, undoing=False)
    assert marked([vm("x", "a")], tried)[0].tries == 0
    assert "was aborted" in resting(tried, NOW)["x"]


def test_after_several_hosts_have_refused_a_vm_the_next_one_is_asked_a_while_later() -> None:
    some = [refused(n, to, Blame.HOST) for n, to in enumerate("bcde")]
    assert resting(since_arrival(some[:2], undoing=False), NOW) == {}
    assert resting(since_arrival(some, undoing=False), NOW + timedelta(seconds=RETRY_S - 1))
    assert not resting(since_arrival(some, undoing=False), NOW + timedelta(seconds=RETRY_S))


def test_an_undo_has_one_host_for_each_vm_and_tries_it_again() -> None:
    back = [one.model_copy(update={"purpose": Purpose.BACK}) for one in (refused(0, "a", Blame.HOST),)]
    tried = since_arrival(back, undoing=True)
    (known,) = marked([vm("x", "b")], tried, undoing=True)
    assert (known.avoid, known.tries) == ({}, 1)
    assert resting(tried, NOW, undoing=True)


def test_the_last_failure_is_named_and_not_a_host_that_only_refused() -> None:
    tried = [refused(0, "a-full", Blame.HOST), *(attempt(n, target="z", blame=Blame.HOST) for n in (1, 2, 3))]
    (known,) = marked([vm("x", "a")], since_arrival(tried, undoing=False))
    assert known.failed == "on z: the link broke"


def test_what_is_left_says_what_the_last_host_said() -> None:
    left = LeftOver(vm="x", name="x", host="a", reason="x fits none of 1 other hosts")
    refused = attempt(0, state=AttemptState.REFUSED, reason="no huge pages")
    (known,) = explained([left], {"x": [refused]})
    assert known.reason == "x fits none of 1 other hosts; the last to refuse was b: no huge pages"
    assert explained([known], {"x": [refused]}) == (known,)
    assert explained([left], {}) == (left,)


# -------------------------------------------------------------- undo


@st.composite
def histories(draw: st.DrawFn) -> list[Attempt]:
    """VMs that were sent from host to host, and some of these migrations failed."""
    places = dict.fromkeys("xyz", "a")
    found = []
    for number in range(draw(st.integers(0, 12))):
        name = draw(st.sampled_from("xyz"))
        target = draw(st.sampled_from([one for one in "abcd" if one != places[name]]))
        state = draw(st.sampled_from(list(AttemptState)))
        purpose = draw(st.sampled_from([Purpose.EMPTY, Purpose.ROOM, Purpose.BACK]))
        found.append(attempt(number, name, state, source=places[name], target=target, purpose=purpose))
        if state is AttemptState.ARRIVED:
            places[name] = target
    return found


@given(histories())
def test_exactly_the_vms_that_it_has_moved_and_that_are_elsewhere_now_are_brought_back(
    history: list[Attempt],
) -> None:
    places = dict.fromkeys("xyz", "a")
    for one in history:
        if one.state is AttemptState.ARRIVED:
            places[one.vm] = one.target
    wanted = {name: at for name, at in places.items() if at != "a"}
    assert returns(reversed(history)) == tuple(
        Return(vm=name, origin="a", put_on=at) for name, at in sorted(wanted.items())
    )


# -------------------------------------------------------------- orders


def test_an_order_repeated_changes_nothing() -> None:
    for status in OperationStatus:
        for order in Order:
            try:
                after = obeying(status, order)
            except Conflict as refused:
                assert "possible: " in refused.fix
            else:
                assert obeying(after, order) is after


def test_only_unfinished_operations_end_and_all_of_them_can() -> None:
    assert set(ENDS) | {OperationStatus.PAUSED} == UNFINISHED
    assert frozenset().union(*ENDS.values()) == FINAL


def test_what_has_ended_can_be_undone_and_what_is_done_not_resumed() -> None:
    for status in FINAL - {OperationStatus.UNDONE}:
        assert obeying(status, Order.UNDO) is OperationStatus.UNDOING
    for status in (OperationStatus.DONE, OperationStatus.UNDONE):
        with pytest.raises(Conflict, match=f"an operation that is {status} cannot be changed with resume"):
            obeying(status, Order.RESUME)


def test_what_was_stopped_or_has_left_vms_behind_goes_on() -> None:
    for status in (OperationStatus.STOPPED, OperationStatus.INCOMPLETE):
        assert obeying(status, Order.RESUME) is OperationStatus.RUNNING
    with pytest.raises(Conflict, match="the undo of this operation was stopped") as refused:
        obeying(OperationStatus.STOPPED, Order.RESUME, undo=True)
    assert "request the undo again" in refused.value.fix


def test_an_undo_that_has_left_vms_is_done_again() -> None:
    assert obeying(OperationStatus.UNDONE, Order.UNDO, left=True) is OperationStatus.UNDOING
