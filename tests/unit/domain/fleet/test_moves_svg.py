from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.fleet.moves_svg import LEFT, WIDTH, Bar, bars, draw_moves, lanes
from sterna.domain.fleet.plans import Purpose

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NS = {"svg": "http://www.w3.org/2000/svg"}


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def attempt(name: str, begin: float, end: float | None, **more: object) -> Attempt:
    known = {
        "migration": name, "operation": "o", "number": 0, "vm": name, "name": name, "source": "a", "target": "b",
        "purpose": Purpose.EMPTY, "state": AttemptState.ARRIVED if end is not None else AttemptState.STARTED,
        "decided_at": at(begin), "ended_at": at(end) if end is not None else "",
    }  # fmt: skip
    return Attempt.model_validate(known | more)


def drawn(*attempts: Attempt, now: float = 100) -> ElementTree.Element:
    return ElementTree.fromstring(draw_moves(bars(attempts, BEGAN, BEGAN + timedelta(seconds=now))))


def test_one_that_goes_on_ends_now() -> None:
    (done, on) = bars([attempt("x", 5, 20), attempt("y", 10, None)], BEGAN, BEGAN + timedelta(seconds=60))
    assert (done.begin_s, done.end_s, on.begin_s, on.end_s) == (5, 20, 10, 60)


def test_a_clock_that_was_set_back_draws_nothing_backwards() -> None:
    (bar,) = bars([attempt("x", -5, -9)], BEGAN, BEGAN)
    assert (bar.begin_s, bar.end_s) == (0, 0)


def test_what_is_at_the_same_time_is_in_different_lines() -> None:
    three = [Bar(host="a", name=n, target="b", state=AttemptState.ARRIVED, begin_s=s, end_s=e)
             for n, s, e in (("x", 0, 10), ("y", 5, 12), ("z", 10, 20))]  # fmt: skip
    assert [[bar.name for bar in lane] for lane in lanes(three)] == [["x", "z"], ["y"]]


def test_each_host_has_its_bars_within_the_picture() -> None:
    picture = drawn(attempt("x", 0, 50), attempt("y", 0, 100), attempt("z", 20, None, source="c"))
    places = [(float(one.get("x", 0)), float(one.get("width", 0))) for one in picture.iterfind(".//svg:rect", NS)]
    assert len(places) == 3 and all(x >= LEFT and x + width <= WIDTH for x, width in places)
    names = [one.text for one in picture.iterfind(".//svg:text[@font-weight]", NS)]
    assert names == ["a", "c"]
    assert [one.text for one in picture.iterfind(".//svg:g/svg:g/svg:title", NS)][:1] == ["x to b: arrived, 50 s"]


def test_what_failed_is_marked_and_hostile_names_are_text() -> None:
    failed = attempt("<script>x</script>\x1b", 0, 90, state=AttemptState.FAILED, source="</svg>")
    picture = drawn(failed)
    kinds = {one.tag.rpartition("}")[2] for one in picture.iter()}
    assert kinds == {"svg", "title", "g", "line", "text", "rect"}
    assert len(picture.findall(".//svg:g[@class='move failed']", NS)) == 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw_moves([]) == ""
