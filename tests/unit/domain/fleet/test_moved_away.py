"""Which VMs operations have moved away from a host, and where each was before the first of them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.fleet.attempts import Attempt, AttemptState, moved_away, returns, still_away
from sterna.domain.fleet.operations import Return
from sterna.domain.fleet.plans import Purpose

OPERATION, OTHER = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000000"


def attempt(number: int, vm: str = "x", **more: object) -> Attempt:
    known = {"operation": OPERATION, "source": "a", "target": "b", "purpose": Purpose.EMPTY}
    about = {"migration": f"m{number}", "number": number, "vm": vm, "name": vm}
    return Attempt.model_validate(known | about | more)


def moved(minute: int, way: str, vm: str = "x", purpose: Purpose = Purpose.EMPTY, **more: object) -> Attempt:
    ends = {"source": way[0], "target": way[1], "ended_at": f"2026-01-01T00:{minute:02}:00+00:00"}
    return attempt(minute, vm, state=AttemptState.ARRIVED, purpose=purpose, **ends, **more)


def x(way: str) -> tuple[Return, ...]:
    return (Return(vm="x", origin=way[0], put_on=way[1]),)


def test_a_vm_is_brought_back_to_where_the_first_of_several_operations_has_found_it() -> None:
    chain = [moved(1, "ab"), moved(2, "bc", operation=OTHER), moved(3, "cd", purpose=Purpose.ROOM)]
    assert moved_away(reversed(chain), "a") == x("ad")
    assert moved_away(chain, "bcd") == ()


def test_one_that_is_back_is_not_away_and_may_be_moved_away_again() -> None:
    there_and_back = [moved(1, "ab"), moved(2, "ba", purpose=Purpose.BACK)]
    assert moved_away(there_and_back, "ab") == ()
    assert moved_away([*there_and_back, moved(3, "ac")], "abc") == x("ac")


def test_where_somebody_else_has_moved_it_in_between_that_place_counts() -> None:
    assert moved_away([moved(1, "ab"), moved(2, "cd")], "ac") == x("cd")


def test_a_rebalance_moves_for_good() -> None:
    balanced = moved(2, "bc", purpose=Purpose.BALANCE)
    assert moved_away([moved(1, "ab"), balanced], "abc") == ()
    assert moved_away([moved(1, "ab"), balanced, moved(3, "cd")], "abc") == x("cd")


def test_what_has_not_arrived_has_moved_nothing() -> None:
    tried = [attempt(1, state=state) for state in AttemptState if state is not AttemptState.ARRIVED]
    assert moved_away(tried, "ab") == ()
    assert still_away(x("ab"), tried) == x("ab")


def test_what_is_parked_on_the_way_back_is_still_away() -> None:
    assert still_away(x("ab"), [moved(1, "bc", purpose=Purpose.PARK)]) == x("ac")
    back = [moved(1, "bc", purpose=Purpose.PARK), moved(2, "ca", purpose=Purpose.HOME)]
    assert still_away(x("ab"), back) == ()


@given(
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=8).filter(lambda way: all(map(str.__ne__, way, way[1:])))
)
def test_of_one_operation_it_is_what_its_undo_brings_back(way: list[str]) -> None:
    tried = [moved(minute, "".join(ends)) for minute, ends in enumerate(pairwise(way))]
    back = moved_away(tried, "abcd")
    assert not back or back[0].put_on == way[-1]
    if way[0] not in way[1:]:
        assert back == returns(tried)
    else:
        assert {one.origin for one in back} <= set(way)
    assert {one.operation for one in tried} == {OPERATION}
