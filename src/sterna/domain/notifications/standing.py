"""Which news of how an operation stands is worth a notification: it is looked at every few seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sterna.domain.model import Value
from sterna.domain.notifications.events import EventType

LASTS_S = 30.0
"""What keeps an operation from its end for less than this is not reported."""
LEAST_S, LEAST_SHARE = 60.0, 0.1
"""A promised end that moves by less than so many seconds, or than this share of what is left, is not reported."""


class Told(Value):
    """What of an operation's standing has been reported."""

    promised_end: str = ""
    """ISO 8601 UTC; '' where none was reported yet."""
    waits_since: str = ""
    """Since when it waits without an end of it; '' while it does not."""
    waits: bool = False
    """That was reported."""


class Standing(NamedTuple):
    """How an operation stands, as far as it matters here."""

    at: str
    """ISO 8601 UTC, the clock of the controller that has looked."""
    waits_for: str
    promised_s: float | None
    """From `at`."""


class News(NamedTuple):
    """What is to be reported, and what has been reported after that."""

    told: Told
    waits: bool = False
    promise: bool = False

    @property
    def kinds(self) -> tuple[EventType, ...]:
        """As types of events, in order."""
        waits = (EventType.OPERATION_WAITING,) if self.waits else ()
        return (*waits, EventType.OPERATION_PROMISE_CHANGED) if self.promise else waits


def promised_end(now: Standing) -> str:
    """ISO 8601 UTC, in whole seconds; '' where nothing is promised."""
    if now.promised_s is None or not now.at:
        return ""
    end = datetime.fromisoformat(now.at) + timedelta(seconds=now.promised_s)
    return end.isoformat(timespec="seconds")


def news(told: Told, now: Standing) -> News:
    """Compare how it stands with what was reported."""
    if not now.at:
        return News(told)
    since = (told.waits_since or now.at) if now.waits_for else ""
    waits = bool(since) and (told.waits or _apart(since, now.at) >= LASTS_S)
    end = promised_end(now)
    moved = bool(end) and (not told.promised_end or _moved(told.promised_end, end, now.promised_s or 0.0))
    after = Told(promised_end=end if moved else told.promised_end, waits_since=since, waits=waits)
    return News(after, waits=waits and not told.waits, promise=moved)


def _moved(before: str, end: str, left_s: float) -> bool:
    by = _apart(before, end)
    return by >= LEAST_S and by >= LEAST_SHARE * left_s


def _apart(one: str, other: str) -> float:
    """Seconds. A clock that was set back is as good as one that was set forward."""
    return abs((datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds())
