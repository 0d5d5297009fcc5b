"""Server-sent events: what happens, as it happens. `Last-Event-ID` resumes behind the last event that had an id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from sterna.api.problems import documented
from sterna.api.serving import MigrationId, Served, position
from sterna.domain.errors import Unreachable

router = APIRouter(prefix="/v1", tags=["events"])
log = structlog.get_logger(__name__)


def _after(last_event_id: Annotated[str | None, Header()] = None) -> int | None:
    return position(last_event_id, "Last-Event-ID", "leave it out") if last_event_id is not None else None


async def _existing(id: MigrationId, controller: Served) -> str:
    return (await controller.fleet.migration(id)).id  # before the stream begins: a 404 must still be one


After = Annotated[int | None, Depends(_after)]


_Stream = AsyncIterator[ServerSentEvent]


async def _stream(controller: Served, migration_id: str | None, after: int | None) -> _Stream:
    yield ServerSentEvent(comment="hello", retry=1000)
    try:
        async for event in controller.follow(migration_id, after):
            yield ServerSentEvent(event=event.kind, data=event.data, id=None if event.id is None else str(event.id))
    except Unreachable as e:  # it has begun: no problem can be told any more, and the reader comes again
        log.info("an event stream ends early", migration=migration_id, error=e.message)


@router.get("/events", summary="What happens in the fleet", response_class=EventSourceResponse,
            responses=documented(400))  # fmt: skip
async def fleet_events(controller: Served, after: After) -> _Stream:
    """From now on, or behind `Last-Event-ID`. Events: `status`, `step`, `note`, `progress`."""
    async for event in _stream(controller, None, after):
        yield event


@router.get("/migrations/{id}/events", summary="What happens in one migration",
            response_class=EventSourceResponse, responses=documented(400, 404))  # fmt: skip
async def migration_events(
    controller: Served, migration_id: Annotated[str, Depends(_existing)], after: After
) -> _Stream:
    """All of it so far, then as it happens; `end` is the last event."""
    async for event in _stream(controller, migration_id, after):
        yield event
