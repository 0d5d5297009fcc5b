"""The pages of operations: all of them, and one with its moves, its promise, and what waits and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from sterna.api import operations as rest
from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Served
from sterna.api.operation_models import MoveOut, OperationDetailOut, PlannedMoveOut
from sterna.api.operations import OperationId
from sterna.api.web.before_after import HostChange, changes, ours
from sterna.api.web.forms import Form
from sterna.api.web.pages import page
from sterna.api.web.queue import by_reason
from sterna.domain.access import Action
from sterna.domain.fleet.course import LEADS_TO, OperationStatus, Order
from sterna.domain.fleet.moves_svg import bars, draw_moves
from sterna.domain.policies import POLICIES
from sterna.ports.operations import OperationRecord, Tried

router = APIRouter(include_in_schema=False)
AT_ONCE = 50
_OPERATE = [needs(Action.OPERATE)]
SET_BACK = {"failed", "refused", "cancelled"}
"""States of a move that has not brought its VM away."""


@router.get("/operations", dependencies=[needs(Action.READ)])
async def list_operations(
    request: Request,
    controller: Served,
    status: Annotated[str, Query(max_length=16)] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Newest first."""
    statuses = [OperationStatus(status)] if status in set(OperationStatus) else None
    listed = await rest.list_operations(controller, cursor, AT_ONCE, status=statuses)
    query = f"status={status}" if statuses else ""
    shown = {"listed": listed, "status": status, "statuses": list(OperationStatus), "query": query}
    shown["policies"] = sorted(POLICIES)
    return page(request, "operations.html", **shown)


def offered(status: OperationStatus) -> set[str]:
    """The orders that can be given now, and would change something."""
    return {order.value for (known, order), then in LEADS_TO.items() if known is status and then is not status}


@router.get("/operations/{id}", dependencies=[needs(Action.READ)])
async def show_operation(request: Request, id: OperationId, controller: Served) -> HTMLResponse:
    """One operation."""
    record = await controller.fleet.operation(id)
    tried = await controller.fleet.attempts(id)
    found = OperationDetailOut.with_moves(record, tried, await controller.fleet.host_steps(id))
    orders = offered(found.status)
    if found.status is OperationStatus.UNDONE and found.left:
        orders.add(Order.UNDO.value)
    return page(
        request,
        "operation.html",
        operation=found,
        orders=orders,
        final=found.status.final,
        drawing=drawing(record, tried),
        promise=promise_of(record),
        setbacks=setbacks(found.moves),
        waits=by_reason(found.waits),
    )


class Promise(NamedTuple):
    """When an operation will probably have ended. Instants are ISO 8601 UTC, durations seconds."""

    promised_at: str
    expected_at: str
    """As likely later as sooner; '' where that is not known."""
    left_s: float
    """From `seen_at` to the promised end."""
    seen_at: str
    deadline_at: str
    """'' where there is none."""


def _after(at: str, seconds: float | None) -> str:
    return "" if seconds is None else (datetime.fromisoformat(at) + timedelta(seconds=seconds)).isoformat()


def promise_of(record: OperationRecord) -> Promise | None:
    """The newest one: the records have no earlier ones. None where there is none."""
    standing = record.standing
    if record.status.final or standing.promised_s is None or not standing.at:
        return None
    return Promise(
        promised_at=_after(standing.at, standing.promised_s),
        expected_at=_after(standing.at, standing.expected_s),
        left_s=standing.promised_s,
        seen_at=standing.at,
        deadline_at=_after(record.created_at, record.finish_within_s),
    )


def setbacks(moves: Iterable[MoveOut]) -> list[MoveOut]:
    """Migrations that have not arrived, the newest first: they move its end away."""
    found = [one for one in moves if one.state in SET_BACK]
    return sorted(found, key=lambda one: one.ended_at or one.decided_at, reverse=True)


def drawing(record: OperationRecord, tried: Sequence[Tried]) -> Markup:
    """Its migrations over time; '' before there are any. One that goes on is drawn up to the last look at it."""
    seen_at = record.ended_at or record.standing.at or record.created_at
    began, now = datetime.fromisoformat(record.created_at), datetime.fromisoformat(seen_at)
    made = draw_moves(bars([one.attempt for one in tried], began, now))
    return Markup(made)  # noqa: S704 - it escapes what it draws


@router.get("/operations/{id}/undo", dependencies=[needs(Action.PLAN)])
async def preview_undo(request: Request, id: OperationId, controller: Served) -> HTMLResponse:
    """What an undo would bring back. Changes nothing."""
    found = await rest.show_operation(id, controller)
    preview = await rest.preview_undo(id, controller)
    moves = ours(preview.moves, ())
    shown = {"operation": found, "preview": preview, "moves": moves, "changes": await _changes(moves, controller)}
    return page(request, "undo.html", **shown)


async def _changes(moves: Sequence[PlannedMoveOut], controller: Served) -> list[HostChange]:
    return changes(await controller.registry.hosts(), await controller.fleet.vms(), moves, ())


@router.post("/operations/{id}/hosts/{host}/done", dependencies=_OPERATE)
async def host_is_done(
    request: Request, id: OperationId, host: Annotated[str, Path(max_length=255)], _fields: Form, controller: Served
) -> RedirectResponse:
    """What was to be done to an empty host is done. As `/v1`."""
    record = await controller.operate.host_done(id, host, actor_of(request).name)
    return RedirectResponse(f"/operations/{record.id}", HTTPStatus.SEE_OTHER)


def _take(order: Order) -> None:
    @router.post(f"/operations/{{id}}/{order.value}", name=f"{order.value} operation", dependencies=_OPERATE)
    async def give_order(request: Request, id: OperationId, _fields: Form, controller: Served) -> RedirectResponse:
        """As `/v1`."""
        record = await controller.operate.order(id, order, actor_of(request).name)
        return RedirectResponse(f"/operations/{record.id}", HTTPStatus.SEE_OTHER)


for _order in Order:
    _take(_order)
