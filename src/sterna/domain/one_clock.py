"""The times of two journals, on one axis that can have been: for traces, whose spans are drawn side by side.

A host's wall clock may be set while a migration runs, and two hosts' clocks differ. So within one life of an agent
times are those of its monotonic clock, from where that life began. And the destination is shifted by the least that
lets nothing of it begin before the message that asked for it, nor end after the answer. Where the clocks agree with
that, nothing is shifted. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sterna.domain.journal import Entry, Role
from sterna.domain.rows import ROWS, How
from sterna.domain.timeline import Item, Result, What, causes_of

MOST = timedelta(days=30)
"""Within one life. More is the word of a clock that is wrong."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def moment(at: str) -> datetime | None:
    """A time of a journal; None where it is none."""
    try:
        found = datetime.fromisoformat(at)
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if EARLIEST <= found <= LATEST else None


def with_steady_times(entries: Iterable[Entry]) -> list[Entry]:
    """The same, of each host in its journal's order; `at` never goes back, whatever was done to its wall clock."""
    ordered = sorted(entries, key=lambda entry: entry.seq)
    return [steady for role in Role for steady in _steady([entry for entry in ordered if entry.role is role])]


def _steady(own: Sequence[Entry]) -> Iterator[Entry]:
    last = EARLIEST
    for _, of_life in groupby(own, key=lambda entry: entry.boot):
        life = list(of_life)
        began = max(moment(life[0].at) or last, last)
        for entry in life:
            passed_ms = min(max(entry.mono_ms - life[0].mono_ms, 0.0), MOST.total_seconds() * 1000)
            last = min(max(last, began + timedelta(milliseconds=passed_ms)), LATEST)
            yield entry.model_copy(update={"at": last.isoformat()})


def shift_of_destination(items: Iterable[Item]) -> timedelta:
    """What is added to the destination's times. The items are of entries with steady times."""
    steps = [item for item in items if item.what is What.STEP]
    source = [item for item in steps if item.role is Role.SOURCE]
    least, most = list[timedelta](), list[timedelta]()
    for item in (item for item in steps if item.role is Role.DESTINATION):
        asked = next((found for row in causes_of(item.row) if (found := _of_row(source, row))), [])
        if not asked:
            continue
        least.append(min(_start(one) for one in asked) - _start(item))
        answered = [at for one in asked if _was_answered(one) and (at := moment(one.ended_at))]
        end = moment(item.ended_at)
        if end is not None and len(answered) == len(asked):
            most.append(max(answered) - end)
    lowest, highest = max(least, default=timedelta()), min(most, default=timedelta.max)
    return max(lowest, min(timedelta(), highest))


def _of_row(source: Sequence[Item], row: str) -> list[Item]:
    return [item for item in source if item.row == row]


def _was_answered(item: Item) -> bool:
    """A call that was made once and has come back: what was asked for had ended by then. One that was repeated may
    have been given up while the destination was at it."""
    row = ROWS.get(item.row)
    once = item.result is Result.DONE and item.tries == 1 and not item.restarts
    return row is not None and row.how is How.CALL and once


def _start(item: Item) -> datetime:
    return moment(item.started_at) or EARLIEST
