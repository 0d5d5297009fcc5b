"""What journals carry: read, and written again, as agents wrote it before these types were there (ADR 17).

`journals_v1/entries.jsonl` has an entry of each name and shape, from whole migrations of that version. Lines are
added to it, for new types, and never changed: what cannot read it cannot take up a migration after an upgrade.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.domain.entries import destination, notes, source
from sterna.domain.entries.base import (
    DirectionChanged,
    Done,
    Failed,
    NoPlan,
    Note,
    Outcome,
    Plan,
    Recorded,
    StatusSet,
)
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.model import Data
from sterna.domain.step import History, Step
from sterna.migration import flow
from sterna.migration.context import Context

WRITTEN = Path(__file__).with_name("journals_v1") / "entries.jsonl"
BY_KIND = {t.kind: t for t in (StatusSet, Failed, DirectionChanged)}
"""Of these every name has the same type."""
FLOWS = (flow.SOURCE, flow.REHEARSAL, flow.DESTINATION, flow.DESTINATION_POST)


def entry(number: int, role: str, kind: str, name: str, data: Data, row: str = "") -> Entry:
    return Entry(
        seq=number, migration_id="m", epoch=1, role=Role(role), kind=Kind(kind), row=row, name=name,
        at="2026-01-01T00:00:00.000Z", mono_ms=number, boot="b", data=data,
    )  # fmt: skip


def written() -> Iterator[Entry]:
    for number, line in enumerate(WRITTEN.read_text(encoding="utf-8").splitlines(), start=1):
        yield entry(number, **json.loads(line))


ENTRIES = tuple(written())


def types() -> set[type[Recorded]]:
    """Every type that belongs to entries of a name."""
    modules = (source, destination, notes)
    values = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {v for v in values if issubclass(v, Recorded) and "entry" in vars(v)}


def type_of(one: Entry) -> type[Recorded] | None:
    """The type of its name, else that of its family."""
    exact = (t for t in types() if (t.kind, t.entry) == (one.kind, one.name))
    families = [t for t in types() if issubclass(t, Note) and t.family and one.kind is Kind.NOTE]
    families.sort(key=lambda t: -len(t.entry))
    return next(exact, next((t for t in families if one.name.startswith(t.entry)), None))


def steps() -> set[type[Step[Context, Any, Any]]]:
    """Every step there is, those that undo included."""
    listed = {
        step
        for each in FLOWS
        for step in (*each.until_pivot, *each.after_pivot, *each.before_undo, *each.after_undo)
    }
    return listed | {undo for step in listed for undo in step.undo} | set(flow.REMOVE_VOLUME_CONNECTION)


def without_news(now: Any, then: Any) -> Any:
    """`now` without the optional fields that were not there `then`: nobody knows what they would have been."""
    if isinstance(now, dict) and isinstance(then, dict):
        kept = {key: value for key, value in now.items() if key in then or value is not None}
        return {key: without_news(value, then.get(key)) for key, value in kept.items()}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [without_news(*pair) for pair in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize("one", ENTRIES, ids=lambda e: f"{e.seq}-{e.role}-{e.kind}-{e.name}")
def test_what_an_earlier_version_wrote_is_read_and_written_alike(one: Entry) -> None:
    kind = type_of(one) or BY_KIND.get(one.kind)
    if kind is not None:
        assert without_news(kind.read(one).to_data(), one.data) == one.data
    elif one.kind in (Kind.INTENT, Kind.DONE):
        assert one.data == {}


def test_every_type_has_an_entry_to_be_compared_with() -> None:
    missing = types() - {type_of(one) for one in ENTRIES}
    assert not missing, f"add an entry of each to {WRITTEN.name}, so that what it looks like is kept"


def by_name(step: type[Step[Context, Any, Any]]) -> str:
    return step.name


ALL_STEPS: list[type[Step[Context, Any, Any]]] = list(steps())
ALL_STEPS.sort(key=by_name)  # in whatever process they are collected


@pytest.mark.parametrize("step", ALL_STEPS, ids=by_name)
def test_a_step_and_what_it_writes_have_one_name(step: type[Step[Context, Any, Any]]) -> None:
    intents = {t for t in types() if issubclass(t, Plan) and t.entry == step.name}
    outcomes = {t for t in types() if issubclass(t, Outcome) and t.entry == step.name}
    assert {step.intent} - {NoPlan} == intents
    assert {step.outcome} - {Done} == outcomes


def test_a_step_with_another_steps_data_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="belongs to attach-volumes"):

        class Other(Step[Context, destination.VolumesToAttach, Done]):
            name = "other"


def test_what_another_version_added_is_ignored_and_what_it_lacks_has_its_default() -> None:
    newer = entry(1, "destination", "done", "update-vm", {"power_state": "dreaming", "new": {"a": 1}})
    history = History.read([newer])
    assert history.get(destination.VmUpdated) == destination.VmUpdated(power_state="dreaming")


def test_a_history_is_asked_by_type() -> None:
    history = History.read([entry(1, "source", "intent", "snapshot-volumes", {"paths": ["/a", "/b"]})])
    assert history.get(source.TokensToLeave).paths == ("/a", "/b")
    assert history.has(source.TokensToLeave) and not history.has(source.Snapshot)
    assert History().find(source.Snapshot) is None
    with pytest.raises(KeyError):
        History().get(source.Snapshot)
