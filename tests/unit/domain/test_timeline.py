from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import Permanent, Temporary
from sterna.domain.journal import Role
from sterna.domain.rows import ROWS, How
from sterna.domain.timeline import Item, Result, What, build_timeline

from .journals import MIGRATION, Book, good_destination, good_source


def rows(items: tuple[Item, ...], role: Role | None = None) -> list[str]:
    return [i.row for i in items if i.row and (role is None or i.role is role)]


def line(items: tuple[Item, ...], row: str) -> Item:
    return next(i for i in items if i.row == row)


def test_every_row_of_the_specification_is_in_the_table() -> None:
    wanted = [f"P{n}" for n in range(1, 13)] + [f"R{n}" for n in range(9)]
    wanted += [f"M{n}" for n in range(1, 7)] + [f"F{n}" for n in range(1, 12)]
    assert list(ROWS) == wanted
    assert ROWS["P3"].how is How.CALL and ROWS["F5"].how is How.CAST and ROWS["P11"].how is How.RETURN


def test_the_destinations_work_stands_behind_the_message_that_asked_for_it() -> None:
    items = build_timeline(MIGRATION, [*good_destination().entries, *good_source().entries])
    order = rows(items)
    assert order[order.index("P3") + 1 : order.index("P12")] == [
        "P4",
        "P5",
        "P6",
        "P7",
        "P8",
        "P9",
        "P10",
        "P11",
        "P11",
    ]
    assert order[order.index("F5") + 1 : order.index("F10")] == ["F6", "F7", "F8", "F9"]


def test_a_rollback_is_ordered_behind_r3_and_r4() -> None:
    source = Book(Role.SOURCE).accepted().status("preparing").intent("P3")
    source.failed("P3", Permanent("no bridge"), final=True).status("rolling-back")
    source.step("R0", "R1", "R2", "R3", "R4").intent("R8").done("R8").status("failed").end()
    target = Book(Role.DESTINATION, boot="d").accepted().step("P4").step("R3", "R5", "R6", "R7").end()
    order = rows(build_timeline(MIGRATION, [*source.entries, *target.entries]))
    assert order == ["P3", "P4", "R0", "R1", "R2", "R3", "R3", "R4", "R5", "R6", "R7", "R8"]


@given(st.integers())
def test_any_order_of_arrival_gives_the_same_timeline(seed: int) -> None:
    entries = [*good_source().entries, *good_destination().entries]
    wanted = build_timeline(MIGRATION, entries)
    random.Random(seed).shuffle(entries)
    assert build_timeline(MIGRATION, entries) == wanted


@given(st.integers(0, 60), st.integers(0, 30))
def test_any_prefix_of_both_journals_keeps_each_hosts_order(upto_source: int, upto_destination: int) -> None:
    source, target = good_source().entries[:upto_source], good_destination().entries[:upto_destination]
    items = build_timeline(MIGRATION, [*target, *source])
    for role, own in ((Role.SOURCE, source), (Role.DESTINATION, target)):
        begun = [e.row for e in own if e.row and e.kind.value in ("intent", "note")]
        assert rows(items, role) == begun


def test_durations_come_from_one_life_of_one_host() -> None:
    source = Book(Role.SOURCE).accepted().intent("P2").done("P2").intent("M4").restart().done("M4")
    items = build_timeline(MIGRATION, source.entries)
    assert line(items, "P2").duration_ms == 10.0
    copied = line(items, "M4")
    assert (copied.duration_ms, copied.restarts, copied.result) == (None, 1, Result.DONE)
    assert [i.what for i in items].count(What.RESTART) == 1


def test_tries_are_counted_and_the_last_error_is_kept() -> None:
    book = Book(Role.SOURCE).intent("P9")
    book.failed("P9", Temporary("not yet", fix="wait"), final=False).intent("P9")
    book.failed("P9", Temporary("still not"), final=False)
    assert line(build_timeline(MIGRATION, book.entries), "P9").result is Result.RETRYING
    item = line(build_timeline(MIGRATION, book.done("P9").entries), "P9")
    assert (item.tries, item.result, item.duration_ms) == (3, Result.DONE, 40.0)
    assert item.error is not None and item.error["message"] == "still not"


def test_a_final_failure_ends_the_step() -> None:
    book = Book(Role.SOURCE).intent("P9").failed("P9", Permanent("never", fix="give up"), final=True)
    item = line(build_timeline(MIGRATION, book.entries), "P9")
    assert (item.result, item.tries, item.duration_ms) == (Result.FAILED, 1, 10.0)
    assert item.error == {"code": "permanent", "message": "never", "fix": "give up"}


def test_an_open_step_is_running_and_interrupted_once_its_agent_died() -> None:
    book = Book(Role.SOURCE).accepted().intent("P2")
    assert line(build_timeline(MIGRATION, book.entries), "P2").result is Result.RUNNING
    book.restart().status("rolling-back").end()
    assert line(build_timeline(MIGRATION, book.entries), "P2").result is Result.INTERRUPTED


def test_an_outcome_without_its_intent_has_no_duration() -> None:
    item = line(build_timeline(MIGRATION, Book(Role.SOURCE).done("F10").entries), "F10")
    assert (item.duration_ms, item.result) == (None, Result.DONE)


def test_entries_of_other_migrations_are_left_out() -> None:
    other = MIGRATION.model_copy(update={"id": "other"})
    assert build_timeline(MIGRATION, Book(Role.SOURCE, migration=other).accepted().entries) == ()
