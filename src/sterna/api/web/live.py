"""A migration's page as it changes: one event stream, at most two patches a second.

A patch is a part of the page as it is now, so that nothing has to be remembered: `now` says how the migration is
getting on, `story` what both agents have done. The ID of a patch is that of the newest stored event in it. Behind
that a browser goes on after a lost connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request

from sterna.api.access import needs
from sterna.api.dependencies import LARGEST, Served
from sterna.api.streams import After, EventStream, Reserved, existing, written
from sterna.api.web.migrations import now_of, story_of
from sterna.api.web.pages import rendered
from sterna.controller.controller import Controller
from sterna.controller.records.events import Event
from sterna.domain.access import Action
from sterna.domain.errors import NotFound, Unreachable

router = APIRouter(include_in_schema=False)
log = structlog.get_logger(__name__)
BETWEEN_S = 1.0
"""Each time there are two patches at most."""


def patch(name: str, text: str, id: int | None) -> bytes:
    """One event of a stream: text of several lines is a field for each."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines()) or "data:\n"
    place = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{lines}{place}\n".encode()


async def _patches(request: Request, controller: Controller, id: str, after: int | None) -> AsyncIterator[bytes]:
    last = after
    try:
        async for batch in controller.event_batches(id, after):
            if not batch:
                continue
            last = max((event.id for event in batch if event.id is not None), default=last)
            yield await _patch(request, controller, id, batch, last)
            if batch[-1].kind == "end":
                yield patch("end", "", last)
                return
            await asyncio.sleep(BETWEEN_S)  # what comes meanwhile is in the next batch
    except (NotFound, Unreachable) as error:  # the answer has begun; the browser comes again
        log.info("a page's event stream ends early", migration=id, error=error.message)


async def _patch(request: Request, controller: Controller, id: str, batch: list[Event], last: int | None) -> bytes:
    record = await controller.migration(id)
    parts = [patch("now", rendered(request, "migration_now.html", **now_of(record)), last)]
    if any(event.kind != "progress" for event in batch):
        story = await story_of(record, controller)
        parts.append(patch("story", rendered(request, "migration_story.html", **now_of(record), **story), last))
    return b"".join(parts)


@router.get("/migrations/{id}/stream", dependencies=[needs(Action.EVENTS)])
async def stream(
    request: Request,
    controller: Served,
    migration_id: Annotated[str, Depends(existing)],
    after: After,
    slot: Reserved,
    since: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
) -> EventStream:
    """Behind `Last-Event-ID`, else behind what the page has already: `since`."""
    begin = after if after is not None else since
    return EventStream(written(_patches(request, controller, migration_id, begin), slot))
