"""Whole journals of an earlier version (before ADR 17): an agent takes them up, and the controller reports on them.

`journals_v1/` has both hosts' entries of a migration that was completed, although an agent died while it copied. It
has those of one that was rolled back as well, and what that version's reports said, with the reasons in
today's words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.domain.entries.destination import VifsPlugged, VmUpdated
from sterna.domain.entries.notes import CopyStarted, DestinationReport
from sterna.domain.entries.source import Copied, DestinationAnswer, Snapshot
from sterna.domain.experience import outcome_of
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.report import build_report
from sterna.domain.step import History
from sterna.migration import flow

STORIES = sorted(Path(__file__).with_name("journals_v1").glob("*.json"))
HALVES = ((Role.SOURCE, (flow.SOURCE,)), (Role.DESTINATION, (flow.DESTINATION, flow.DESTINATION_POST)))


def entries_of(story: dict[str, Any], role: Role | None = None) -> list[Entry]:
    entries = [Entry.model_validate(entry) for entry in story["entries"]]
    return [entry for entry in entries if role in (None, entry.role)]


@pytest.fixture(params=STORIES, ids=lambda path: path.stem)
def story(request: pytest.FixtureRequest) -> dict[str, Any]:
    story: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return story


def named(name: str) -> list[Entry]:
    path = next(path for path in STORIES if path.stem == name)
    return entries_of(json.loads(path.read_text(encoding="utf-8")))


def lives(entries: list[Entry]) -> Iterator[tuple[History, str]]:
    """At each moment: the history so far, and the step that was finished next, where the same list held then."""
    for cut in range(len(entries)):
        later = (e for e in entries[cut:] if e.kind in (Kind.DONE, Kind.COMPENSATING))
        following = next(later, None)
        if following is not None and following.kind is Kind.DONE:
            yield History.read(entries[:cut]), following.name


@pytest.mark.parametrize(("role", "flows"), HALVES, ids=lambda value: str(value) if isinstance(value, Role) else "")
def test_an_agent_goes_on_from_any_moment(story: dict[str, Any], role: Role, flows: Any) -> None:
    moments = list(lives(entries_of(story, role)))
    assert len(moments) > 20
    for history, following in moments:
        remaining = [step.name for each in flows for step in each.remaining(history)]
        if role is Role.DESTINATION:  # R3 is asked for by itself
            remaining += [step.name for step in flow.REMOVE_VOLUME_CONNECTION]
        assert following in remaining
        assert not history.results.keys() & set(remaining) - {s.name for s in flow.REMOVE_VOLUME_CONNECTION}


def test_what_later_steps_need_is_there() -> None:
    source = History.read(e for e in named("completed") if e.role is Role.SOURCE)
    answer = source.get(DestinationAnswer)
    assert {d.target for d in source.get(Snapshot).vm.disks} == {d.target for d in answer.disks}
    assert answer.host is not None and answer.address == answer.addresses[0]
    assert source.has(CopyStarted) and not source.get(Copied).guest_ended
    assert source.get(DestinationReport, "F9").guest_state == GuestState.RUNNING
    there = History.read(e for e in named("completed") if e.role is Role.DESTINATION)
    assert there.get(VmUpdated).power_state == GuestState.RUNNING
    assert [nic.mac for nic in there.get(VifsPlugged).nics] == [nic.mac for nic in answer.nics]


def test_why_it_was_rolled_back_is_known() -> None:
    source = History.read(e for e in named("rolled-back") if e.role is Role.SOURCE)
    assert source.failure.code == "permanent" and "take-ownership" in source.failure.message


def test_the_report_and_what_is_learnt_are_the_same(story: dict[str, Any]) -> None:
    migration, entries = Migration.model_validate(story["migration"]), entries_of(story)
    report = build_report(migration, entries).model_dump(mode="json")
    assert {key: report[key] for key in story["report"]} == story["report"]
    outcome = outcome_of(migration, entries)
    learnt = outcome.model_dump(mode="json") if outcome else None
    assert (learnt is None) == (story["outcome"] is None)
    assert learnt is None or {key: learnt[key] for key in story["outcome"]} == story["outcome"]
