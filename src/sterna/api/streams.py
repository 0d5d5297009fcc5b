"""Server-sent events: what happens, as it happens. `Last-Event-ID` resumes behind the last event that had an id."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from sterna.api.access import actor_of, needs
from sterna.api.problems import documented
from sterna.api.serving import MigrationId, Served, position
from sterna.domain.access import Action
from sterna.domain.errors import Temporary, Unreachable

router = APIRouter(prefix="/v1", tags=["events"], dependencies=[needs(Action.EVENTS)])
log = structlog.get_logger(__name__)

MOST_STREAMS = 64
"""Open at once, for one user or token: each is a connection, and gets every event."""


def _after(last_event_id: Annotated[str | None, Header()] = None) -> int | None:
    return position(last_event_id, "Last-Event-ID", "leave it out") if last_event_id is not None else None


async def _existing(id: MigrationId, controller: Served) -> str:
    return (await controller.fleet.migration(id)).id  # before the stream begins: a 404 must still be one


After = Annotated[int | None, Depends(_after)]


ASK_AGAIN_S = 30.0
"""How long a stream may go on after its token was removed or has expired."""


class Place:
    """One user's further stream."""

    def __init__(self, open_streams: Counter[str], name: str, still: Callable[[], Awaitable[bool]]) -> None:
        self._open, self._name, self._still = open_streams, name, still
        self._asked = time.monotonic()

    async def is_allowed(self) -> bool:
        """May the user still read? Checked now and then."""
        if time.monotonic() - self._asked < ASK_AGAIN_S:
            return True
        self._asked = time.monotonic()
        return await self._still()

    def __enter__(self) -> None:
        self._open[self._name] += 1

    def __exit__(self, *_: object) -> None:
        self._open[self._name] -= 1
        if not self._open[self._name]:
            del self._open[self._name]


def _place(request: Request) -> Place:
    """Raises Temporary where the user has too many already."""
    name, open_streams = actor_of(request).name, request.app.state.streams
    if open_streams[name] >= MOST_STREAMS:
        fix = "end some of them, or give each program a token of its own"
        raise Temporary(f"{name} follows {MOST_STREAMS} event streams already", fix=fix)
    return Place(open_streams, name, request.scope["state"]["still"])


Reserved = Annotated[Place, Depends(_place)]
_Stream = AsyncIterator[ServerSentEvent]


async def _stream(controller: Served, migration_id: str | None, after: int | None, place: Place) -> _Stream:
    with place:
        async for event in _events(controller, migration_id, after):
            if not await place.is_allowed():
                return
            yield event


async def _events(controller: Served, migration_id: str | None, after: int | None) -> _Stream:
    yield ServerSentEvent(comment="hello", retry=1000)
    try:
        async for event in controller.follow(migration_id, after):
            yield ServerSentEvent(event=event.kind, data=event.data, id=None if event.id is None else str(event.id))
    except Unreachable as e:  # the answer has begun, so no problem can be sent; the reader reconnects
        log.info("an event stream ends early", migration=migration_id, error=e.message)


@router.get("/events", summary="What happens in the fleet", response_class=EventSourceResponse,
            responses=documented(400, 503))  # fmt: skip
async def fleet_events(controller: Served, after: After, place: Reserved) -> _Stream:
    """From now on, or behind `Last-Event-ID`. Events: `status`, `step`, `note`, `progress`."""
    async for event in _stream(controller, None, after, place):
        yield event


@router.get("/migrations/{id}/events", summary="What happens in one migration",
            response_class=EventSourceResponse, responses=documented(400, 404, 503))  # fmt: skip
async def migration_events(
    controller: Served, migration_id: Annotated[str, Depends(_existing)], after: After, place: Reserved
) -> _Stream:
    """All of it so far, then as it happens; `end` is the last event."""
    async for event in _stream(controller, migration_id, after, place):
        yield event
