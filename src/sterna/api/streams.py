"""Server-sent events: what happens, as it happens. `Last-Event-ID` resumes behind the last event that had an id."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import MigrationId, Served, position
from sterna.api.problems import documented
from sterna.controller.controller import Controller
from sterna.controller.records.events import Event
from sterna.domain.access import Action
from sterna.domain.errors import Temporary, Unreachable

router = APIRouter(prefix="/v1", tags=["events"], dependencies=[needs(Action.EVENTS)])
log = structlog.get_logger(__name__)

MOST_STREAMS = 64
"""Open at once, for one user or token: each is a connection, and gets every event."""


def _after(last_event_id: Annotated[str | None, Header()] = None) -> int | None:
    return position(last_event_id, "Last-Event-ID", "leave it out") if last_event_id is not None else None


async def existing(id: MigrationId, controller: Served) -> str:
    """The migration's UUID. Raises NotFound."""
    return (await controller.fleet.migration(id)).id  # before the stream begins: a 404 must still be one


After = Annotated[int | None, Depends(_after)]


COMMENT_EVERY_S = 15.0
ASK_AGAIN_S = 30.0
"""How long a stream may go on after its token was removed or has expired."""


class StreamSlot:
    """One of the event streams that a user may have open. Counted while the `with` block lasts."""

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


def _slot(request: Request) -> StreamSlot:
    """Raises Temporary where the user has too many already."""
    name, open_streams = actor_of(request).name, request.app.state.streams
    if open_streams[name] >= MOST_STREAMS:
        fix = "close some of them, or use a separate token for each program"
        raise Temporary(f"{name} already has {MOST_STREAMS} event streams open", fix=fix)
    return StreamSlot(open_streams, name, request.scope["state"]["still"])


Reserved = Annotated[StreamSlot, Depends(_slot)]


class EventStream(StreamingResponse):
    """Server-sent events. Whole batches are written at once: with many watchers, each further piece costs more than
    what is in it."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], status_code: int = 200) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, status_code, headers)


async def written(pieces: AsyncIterator[bytes], slot: StreamSlot) -> AsyncIterator[bytes]:
    """A stream of these events, while its user may read."""
    with slot:
        yield b": hello\nretry: 1000\n\n"
        async for piece in _with_comments(pieces):
            if not await slot.is_allowed():
                return
            yield piece


async def _events(controller: Controller, migration_id: str | None, after: int | None) -> AsyncIterator[bytes]:
    try:
        async for batch in controller.event_batches(migration_id, after):
            yield b"".join(map(_written, batch))
    except Unreachable as e:  # the answer has begun, so no problem can be sent; the reader reconnects
        log.info("an event stream ends early", migration=migration_id, error=e.message)


def _written(event: Event) -> bytes:
    id = "" if event.id is None else f"id: {event.id}\n"
    return f"event: {event.kind}\ndata: {event.text}\n{id}\n".encode()


async def _with_comments(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A comment where nothing happens, so that each side notices when the other one is gone."""
    following = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            await asyncio.wait((following,), timeout=COMMENT_EVERY_S)
            if not following.done():
                yield b": ping\n\n"
            elif (piece := following.result()) is None:
                return
            else:
                yield piece
                following = asyncio.ensure_future(anext(pieces, None))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@router.get("/events", summary="Follow the events of the fleet", response_class=EventStream,
            responses=documented(400, 503))  # fmt: skip
async def fleet_events(controller: Served, after: After, slot: Reserved) -> EventStream:
    """From now on, or after `Last-Event-ID`. Events: `status`, `step`, `note`, `progress` (one per second for each
    running copy). `missed` means that this client was too slow for some `progress` events; no others are lost."""
    return EventStream(written(_events(controller, None, after), slot))


@router.get("/migrations/{id}/events", summary="Follow the events of one migration", response_class=EventStream,
            responses=documented(400, 404, 503))  # fmt: skip
async def migration_events(
    controller: Served, migration_id: Annotated[str, Depends(existing)], after: After, slot: Reserved
) -> EventStream:
    """First all events so far, then new ones; `end` is the last event."""
    return EventStream(written(_events(controller, migration_id, after), slot))
