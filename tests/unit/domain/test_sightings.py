from __future__ import annotations

import pytest

from sterna.domain.model import GuestState
from sterna.domain.sightings import Mark, News, confirmed, fits, home_of, runs_also, text_of
from sterna.kit.digests import digest_of
from tests.contract.records import seen

ON, OFF, PAUSED = GuestState.RUNNING, GuestState.SHUTOFF, GuestState.PAUSED


def mark(seq: int, boot: str = "life-1") -> Mark:
    return Mark(boot=boot, seq=seq, digest="d")


def change(seq: int, boot: str = "life-1") -> News:
    return News(mark=mark(seq, boot), whole=False)


def whole(seq: int, boot: str = "life-1") -> News:
    return News(mark=mark(seq, boot), whole=True)


@pytest.mark.parametrize(
    ("news", "known", "verdict"),
    [
        (change(8), mark(7), "take"),
        (change(7), mark(7), "known"),
        (change(3), mark(7), "known"),
        (change(9), mark(7), "gap"),
        (change(8, "life-2"), mark(7), "gap"),
        (change(1), None, "gap"),
        (whole(3), None, "take"),
        (whole(3), mark(7, "life-0"), "take"),
        (whole(7), mark(7), "take"),
        (whole(6), mark(7), "known"),
        (News(whole=True), mark(7), "take"),
    ],
)
def test_what_can_be_taken(news: News, known: Mark | None, verdict: str) -> None:
    assert fits(news, known) == verdict


def test_a_digest_tells_lists_apart_whatever_their_order() -> None:
    one, two = seen(1), seen(2)
    assert digest_of(text_of([one, two])) == digest_of(text_of([two, one]))
    others = [[one], [one, seen(2, OFF)], [one, seen(2, name="x")], [one, seen(2, memory_bytes=1)], []]
    assert len({digest_of(text_of(vms)) for vms in [[one, two], *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("home", "told", "said", "found"),
    [
        (None, "a", {"a": ON}, "a"),
        ("a", "b", {"a": ON, "b": ON}, "b"),
        ("a", "", {"a": ON, "b": ON}, "a"),
        ("a", "b", {"a": ON, "b": PAUSED}, "a"),
        ("a", "", {"a": OFF, "b": ON}, "b"),
        ("a", "b", {"a": OFF, "b": OFF}, "a"),
        ("a", "", {"b": OFF, "c": OFF}, "b"),
        ("a", "", {}, None),
    ],
)
def test_a_vm_is_where_it_runs_else_where_it_was(
    home: str | None, told: str, said: dict[str, GuestState], found: str | None
) -> None:
    assert home_of(home, said, reporter=told) == found


def test_of_a_vm_that_migrates_its_journals_say_where_it_is() -> None:
    assert home_of("a", {"b": ON}, reporter="b", migrates=True) == "a"
    assert home_of("a", {}, migrates=True) == "a"


def test_one_that_runs_twice_counts_once_both_have_been_asked() -> None:
    also = runs_also("b", {"a": ON, "b": ON, "c": PAUSED})
    assert also == ("a",)
    assert confirmed(also, before=(), asked=()) == ()
    assert confirmed(also, before=(), asked={"a"}) == confirmed(also, before=("a",), asked=()) == ("a",)
    assert runs_also("b", {"a": ON, "b": PAUSED}) == ()
