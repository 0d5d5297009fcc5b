"""The page of the queue: what waits, in the order in which it will probably begin, and for what."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, NamedTuple, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from sterna.api import queue as rest
from sterna.api.access import needs
from sterna.api.dependencies import Cursor, Served
from sterna.api.operation_models import WaitOut
from sterna.api.queue import WaitingOut
from sterna.api.web.pages import page, place_of
from sterna.domain.access import Action
from sterna.ports.operations import OperationRecord

router = APIRouter(include_in_schema=False)
AT_ONCE = 200

Wait = TypeVar("Wait", bound=WaitOut)
Waits = list[tuple[str, list[Wait]]]
"""Reason, and those one after the other that wait for it."""


class Section(NamedTuple):
    """What waits of one operation, or single migrations."""

    operation_id: str | None
    operation: OperationRecord | None
    """None where it has ended meanwhile."""
    groups: Waits[WaitingOut]


def by_reason(waits: Iterable[Wait]) -> Waits[Wait]:
    """In their order."""
    return [(reason, list(some)) for reason, some in groupby(waits, key=lambda one: one.reason)]


def sections(waits: Iterable[WaitingOut], operations: Iterable[OperationRecord]) -> list[Section]:
    """In their order."""
    known = {one.id: one for one in operations}
    found = groupby(waits, key=lambda one: one.operation_id)
    return [Section(id, known.get(id or ""), by_reason(some)) for id, some in found]


@router.get("/queue", dependencies=[needs(Action.READ)])
async def show_queue(
    request: Request,
    controller: Served,
    host: Annotated[str, Query(max_length=255)] = "",
    operation: Annotated[str, Query(max_length=36)] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """What waits, and for what."""
    listed = await rest.list_queue(controller, host=host, operation=operation, cursor=cursor, limit=AT_ONCE)
    unfinished = await controller.fleet.unfinished_operations()
    given = {"host": host, "operation": operation}
    query = urlencode({name: value for name, value in given.items() if value})
    shown = {"host": host, "operation": operation, "next_cursor": listed.next_cursor, "query": query}
    found = sections(listed.waits, unfinished)
    return page(
        request, "queue.html", **shown, sections=found, unplanned=listed.unplanned, address=place_of(request)
    )
