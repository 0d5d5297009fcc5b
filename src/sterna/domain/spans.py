"""A migration's trace: one span for the whole, and one for each step of both agents, made from the journals
afterwards. Nothing is recorded for it while a migration runs. Pure.

Its ids are made from what the journals say, so a trace that is made again is the same one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from sterna.domain.journal import Entry, Migration, Role
from sterna.domain.model import Data, Value
from sterna.domain.one_clock import EARLIEST, moment, shift_of_destination, with_steady_times
from sterna.domain.plain_text import printable
from sterna.domain.rows import row_for
from sterna.domain.status import FINAL, Status
from sterna.domain.timeline import Item, Result, What, build_timeline

MOST_STEPS = 500
"""Spans besides the whole's. A migration has some forty; a host writes into its journal what it likes."""
MOST_EVENTS = 200
LONGEST_TEXT = 1_000
"""Characters."""
SWITCHED = "M5"
"""The note of the source that the guest runs on the destination."""
_TRACE_ID = re.compile("[0-9a-f]{32}")
_ENDS = frozenset(status.value for status in FINAL)

Attribute = str | int | float
Attributes = Mapping[str, Attribute]


class SpanEvent(Value):
    """A moment of a span."""

    at: datetime
    name: str
    attributes: dict[str, Attribute] = {}


class Span(Value):
    """Something that took time."""

    id: str
    """16 hexadecimal digits."""
    parent: str = ""
    """The id of the span that it is part of; '' for the whole."""
    host: str = ""
    """Where it was; '' for the whole, which no single host has."""
    name: str
    start: datetime
    end: datetime
    attributes: dict[str, Attribute] = {}
    events: tuple[SpanEvent, ...] = ()
    failed: bool = False
    error: str = ""
    """What went wrong."""


class Trace(Value):
    """Of one migration."""

    id: str
    """32 hexadecimal digits: those of the migration's id."""
    spans: tuple[Span, ...]
    """The whole is the first."""


def trace_of(
    migration: Migration, entries: Iterable[Entry], status: Status, reason: str = "", error: Data | None = None
) -> Trace:
    """From both hosts' entries, in any order. `status`, `reason`, `error`: as the records have them. What has not
    ended yet ends with the last entry that is known."""
    steady = with_steady_times(entry for entry in entries if entry.migration_id == migration.id)
    items = build_timeline(migration, steady)
    shift = shift_of_destination(items)
    placed = [_placed(item, shift) for item in items]
    common = _common(migration)
    whole = _whole(migration, placed, common, status)
    explained = _text(str((error or {}).get("message") or reason)) if status is not Status.COMPLETED else ""
    steps = [item for item in placed if item.what is What.STEP]
    more: dict[str, Attribute] = {"sterna.reason": explained} if explained else {}
    if len(steps) > MOST_STEPS:
        more["sterna.steps_left_out"] = len(steps) - MOST_STEPS
    failed = status in (Status.FAILED, Status.ERROR)
    root = whole.model_copy(
        update={
            "attributes": {**whole.attributes, **more},
            "failed": failed,
            "error": explained if failed else "",
        }
    )
    return Trace(id=_trace_id(migration.id), spans=(root, *_steps(steps[:MOST_STEPS], root, common, shift)))


def _placed(item: Item, shift: timedelta) -> Item:
    """With the destination's times on the source's axis."""
    if item.role is Role.SOURCE or not shift:
        return item
    start, end = moment(item.started_at), moment(item.ended_at)
    return item.model_copy(
        update={
            "started_at": (start + shift).isoformat() if start else "",
            "ended_at": (end + shift).isoformat() if end else "",
        }
    )


def _whole(migration: Migration, items: Sequence[Item], common: Attributes, status: Status) -> Span:
    times = [at for item in items for at in (moment(item.started_at), moment(item.ended_at)) if at is not None]
    asked = moment(migration.created_at) or EARLIEST
    own = [at for item in items if item.role is Role.SOURCE and (at := moment(item.started_at))]
    ends = [moment(item.started_at) for item in items if item.what is What.STATUS and item.status in _ENDS]
    start = min(own or times, default=asked)
    end = max([at for at in ends if at is not None] or times, default=start)
    route = {"sterna.source": _text(migration.source), "sterna.destination": _text(migration.destination)}
    return Span(
        id=_span_id(migration.id, "migration"),
        name="migration",
        start=start,
        end=max(start, end),
        attributes={**common, **route, "sterna.outcome": status.value},
        events=tuple(_event(item) for item in [item for item in items if _is_event(item)][:MOST_EVENTS]),
    )


def _is_event(item: Item) -> bool:
    switched = item.what is What.NOTE and item.row == SWITCHED
    return switched or item.what in (What.STATUS, What.RESTART)


def _event(item: Item) -> SpanEvent:
    name = item.status if item.what is What.STATUS else item.name
    if item.what is What.NOTE:
        name = row_for(SWITCHED, Role.SOURCE, "").label
    told: dict[str, Attribute] = {"host.name": _text(item.host)}
    if item.reason:
        told["sterna.reason"] = _text(item.reason)
    return SpanEvent(at=moment(item.started_at) or EARLIEST, name=_text(name), attributes=told)


def _steps(items: Sequence[Item], root: Span, common: Attributes, shift: timedelta) -> list[Span]:
    seen = Counter[tuple[str, ...]]()
    made = []
    for item in items:
        key = item.role.value, item.row, item.name
        seen[key] += 1
        made.append(_step(item, root, common, f"{seen[key]}", shift))
    return made


def _step(item: Item, root: Span, common: Attributes, number: str, shift: timedelta) -> Span:
    start = moment(item.started_at) or root.start
    message = _text(str((item.error or {}).get("message", "")))
    attributes: dict[str, Attribute] = {
        **common,
        "host.name": _text(item.host),
        "sterna.role": item.role.value,
        "sterna.outcome": item.result.value,
        "sterna.tries": item.tries,
    }
    if item.row:
        attributes["sterna.row"] = _text(item.row)
    if item.restarts:
        attributes["sterna.restarts"] = item.restarts
    if message:
        attributes["error.type"] = _text(str((item.error or {}).get("code", "")))
        attributes["sterna.error"] = message
    if shift and item.role is Role.DESTINATION:
        attributes["sterna.clock_shift_ms"] = shift / timedelta(milliseconds=1)
    failed = item.result in (Result.FAILED, Result.RETRYING)
    return Span(
        id=_span_id(str(common["sterna.migration.id"]), item.role.value, item.row, item.name, number),
        parent=root.id,
        host=_text(item.host),
        name=_text(f"{item.row} {row_for(item.row, item.role, item.name).label}".strip()) or "step",
        start=start,
        end=max(start, moment(item.ended_at) or start),
        attributes=attributes,
        failed=failed,
        error=message if failed else "",
    )


def _common(migration: Migration) -> dict[str, Attribute]:
    names = {
        "sterna.migration.id": migration.id,
        "sterna.vm.name": migration.vm_name,
        "sterna.vm.uuid": migration.vm_uuid,
    }
    return {name: _text(value) for name, value in names.items()}


def _text(text: str) -> str:
    return printable(text[:LONGEST_TEXT])


def _trace_id(migration_id: str) -> str:
    digits = migration_id.replace("-", "").lower()
    return digits if _TRACE_ID.fullmatch(digits) else sha256(migration_id.encode()).hexdigest()[:32]


def _span_id(*of: str) -> str:
    return sha256("\n".join(of).encode(errors="replace")).hexdigest()[:16]
