"""Journals -> a trace: what its spans are, when they were, and what the encoding of OTLP is."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import Permanent, Temporary
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.one_clock import moment
from sterna.domain.otlp import otlp_of
from sterna.domain.spans import MOST_STEPS, trace_of
from sterna.domain.status import Status
from tests.unit.otlp_schema import Request, Span

from .journals import MIGRATION, Book, good_destination, good_source


def traced(entries: Iterable[Entry], status: Status = Status.COMPLETED, **more: Any) -> Request:
    """As a receiver reads it."""
    body = json.dumps(otlp_of(trace_of(MIGRATION, entries, status, **more), "0.1.0"))
    return Request.model_validate_json(body)


def whole(request: Request) -> Span:
    (found,) = [span for span in request.spans if span.parentSpanId is None]
    return found


def step(request: Request, row: str, role: Role = Role.SOURCE) -> Span:
    spans = [one for one in request.spans if one.told.get("sterna.row") == row and one.told["sterna.role"] == role]
    (found,) = spans
    return found


def clock_set(entries: list[Entry], by: timedelta, since: int = 0) -> list[Entry]:
    """As if this host's wall clock had been set before that entry."""
    moved = []
    for entry in entries[since:]:
        at = moment(entry.at)
        assert at is not None
        moved.append(entry.model_copy(update={"at": (at + by).isoformat()}))
    return [*entries[:since], *moved]


def test_one_trace_with_the_whole_and_each_step_of_both_agents() -> None:
    found = traced([*good_source().entries, *good_destination().entries])
    assert {span.traceId for span in found.spans} == {MIGRATION.id.replace("-", "")}
    root = whole(found)
    assert root.name == "migration" and root.told["sterna.outcome"] == "completed"
    assert root.told["sterna.source"] == "a" and root.told["sterna.destination"] == "b"
    assert {span.parentSpanId for span in found.spans} == {None, root.spanId}
    assert len({span.spanId for span in found.spans}) == len(found.spans)
    rows = {(span.told["sterna.row"], span.told["host.name"]) for span in found.spans if span is not root}
    assert {("P3", "a"), ("M4", "a"), ("F11", "a"), ("P9", "b"), ("F8", "b")} <= rows
    volumes = step(found, "P9", Role.DESTINATION)
    assert volumes.name == "P9 connect volumes" and volumes.end_ms - volumes.start_ms == 10
    for span in found.spans:
        assert span.told["sterna.migration.id"] == MIGRATION.id
        assert span.told["sterna.vm.name"] == "web1" and span.told["sterna.vm.uuid"] == MIGRATION.vm_uuid
        assert span.told["sterna.outcome"] and span.status.code == 0
    resources = {
        one.resource.told.get("host.name"): one.resource.told["service.name"] for one in found.resourceSpans
    }
    assert resources == {None: "sterna", "a": "sterna-agent", "b": "sterna-agent"}


def test_the_whole_has_the_statuses_and_the_pivot_as_events() -> None:
    events = [event.name for event in whole(traced(good_source().entries)).events]
    assert events == ["preparing", "migrating", "the guest runs on the destination", "post-migrating", "completed"]


def test_the_whole_lasts_from_the_acceptance_to_the_end() -> None:
    source = good_source()
    root = whole(traced([*source.entries, *good_destination().entries]))
    ended = next(one for one in source.entries if one.data.get("status") == "completed")
    assert root.end_ms - root.start_ms == ended.mono_ms - source.entries[0].mono_ms


@pytest.mark.parametrize("ahead_ms", [-3_600_000, -5_000, 0, 5_000, 56_000, 3_600_000])
def test_a_destination_whose_clock_is_wrong_does_nothing_before_it_was_asked_to(ahead_ms: int) -> None:
    """Nor after its answer has arrived."""
    asked = Book(Role.SOURCE).accepted().intent("P3")
    other = Book(Role.DESTINATION, boot="d", mono_ms=asked.mono_ms).step("P4", "P9")
    asked.mono_ms = other.mono_ms
    asked.done("P3").intent("F5").done("F5")
    other.mono_ms = asked.mono_ms
    other.step("F8")
    found = traced([*asked.entries, *clock_set(other.entries, timedelta(milliseconds=ahead_ms))])
    first, last = step(found, "P4", Role.DESTINATION), step(found, "P9", Role.DESTINATION)
    call, cast, recorded = step(found, "P3"), step(found, "F5"), step(found, "F8", Role.DESTINATION)
    assert call.start_ms <= first.start_ms and last.end_ms <= call.end_ms
    assert cast.start_ms <= recorded.start_ms
    assert recorded.start_ms - first.start_ms == 70  # its own times are as they were
    shift = first.told.get("sterna.clock_shift_ms", 0)
    assert isinstance(shift, float | int) and abs(shift + ahead_ms) <= 50
    assert "sterna.clock_shift_ms" not in call.told


def test_clocks_that_agree_are_left_alone() -> None:
    asked = Book(Role.SOURCE).accepted().intent("P3")
    other = Book(Role.DESTINATION, boot="d", mono_ms=asked.mono_ms).step("P4")
    asked.mono_ms = other.mono_ms
    found = traced([*asked.done("P3").entries, *other.entries], Status.PREPARING)
    assert not [span for span in found.spans if "sterna.clock_shift_ms" in span.told]


@pytest.mark.parametrize("hours", [-9, 9])
def test_a_clock_that_is_set_while_a_migration_runs_changes_no_duration(hours: int) -> None:
    source = good_source().entries
    plain = traced([*source, *good_destination().entries])
    jumped = traced([*clock_set(source, timedelta(hours=hours), since=9), *good_destination().entries])
    assert [(one.name, one.startTimeUnixNano, one.endTimeUnixNano) for one in jumped.spans] == [
        (one.name, one.startTimeUnixNano, one.endTimeUnixNano) for one in plain.spans
    ]


@pytest.mark.parametrize("hours", [-9, 9])
def test_after_a_restart_nothing_goes_back(hours: int) -> None:
    book = Book(Role.SOURCE).accepted().step("P1").intent("M4").restart()
    restarted = len(book.entries)
    book.done("M4").step("F1").status("completed").end()
    found = traced(clock_set(book.entries, timedelta(hours=hours), since=restarted))
    assert (
        step(found, "P1").end_ms
        <= step(found, "M4").start_ms
        <= step(found, "M4").end_ms
        <= step(found, "F1").start_ms
    )
    assert step(found, "M4").told["sterna.restarts"] == 1
    assert "agent restarted" in [event.name for event in whole(found).events]


def test_a_failure_says_what_went_wrong() -> None:
    book = Book(Role.SOURCE).accepted().intent("P2").failed("P2", Temporary("not yet"), final=False).intent("P2")
    book.done("P2").intent("P3").failed("P3", Permanent("no bridge"), final=True).status("rolling-back")
    found = traced(book.status("failed").end().entries, Status.FAILED, error=Permanent("no bridge").to_wire())
    assert (whole(found).status.code, whole(found).status.message) == (2, "no bridge")
    assert whole(found).told["sterna.reason"] == "no bridge"
    failed, again = step(found, "P3"), step(found, "P2")
    assert (failed.status.code, failed.status.message, failed.told["error.type"]) == (2, "no bridge", "permanent")
    assert (again.status.code, again.told["sterna.tries"], again.told["sterna.error"]) == (0, 2, "not yet")


def test_one_that_was_cancelled_has_not_failed() -> None:
    book = Book(Role.SOURCE).accepted().status("rolling-back").status("cancelled").end()
    root = whole(traced(book.entries, Status.CANCELLED, reason="aborted"))
    assert root.status.code == 0
    assert (root.told["sterna.outcome"], root.told["sterna.reason"]) == ("cancelled", "aborted")


def test_a_step_without_an_end_has_no_length() -> None:
    found = traced(Book(Role.SOURCE).accepted().intent("M4").entries, Status.MIGRATING)
    assert step(found, "M4").start_ms == step(found, "M4").end_ms
    assert step(found, "M4").told["sterna.outcome"] == "running"


def test_without_any_entry_there_is_the_whole_alone() -> None:
    (root,) = traced([], Status.QUEUED).spans
    at = moment(MIGRATION.created_at)
    assert at is not None and root.start_ms == root.end_ms == at.timestamp() * 1000


@given(st.integers())
def test_made_again_it_is_the_same(seed: int) -> None:
    entries = [*good_source().entries, *good_destination().entries]
    wanted = trace_of(MIGRATION, entries, Status.COMPLETED)
    random.Random(seed).shuffle(entries)
    assert trace_of(MIGRATION, entries, Status.COMPLETED) == wanted


@given(
    st.sampled_from(["", "soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00+23:59"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
def test_whatever_a_host_writes_it_can_be_sent(at: str, mono_ms: float, text: str) -> None:
    lies = {"at": at, "mono_ms": mono_ms}
    source = [entry.model_copy(update=lies) for entry in good_source().entries[::2]]
    target = [entry.model_copy(update={**lies, "row": text, "name": text}) for entry in good_destination().entries]
    found = traced([*source, *target, *good_source().entries], reason=text)
    assert all(int(span.startTimeUnixNano) <= int(span.endTimeUnixNano) for span in found.spans)


def test_a_journal_without_an_end_becomes_no_trace_without_an_end() -> None:
    book = Book(Role.DESTINATION, boot="d")
    for number in range(MOST_STEPS + 7):
        book.write(Kind.INTENT, "P9", f"step-{number}").write(Kind.DONE, "P9", f"step-{number}")
    entries = [*Book(Role.SOURCE).accepted().step("P3").entries, *book.entries]
    found = traced(entries, Status.FAILED, error={"message": "x" * 10**6})
    assert len(found.spans) == MOST_STEPS + 1
    assert whole(found).told["sterna.steps_left_out"] == 8 and len(whole(found).status.message) == 1_000
