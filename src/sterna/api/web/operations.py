"""The pages of operations: all of them, and one with its moves, its promise, and what waits and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from sterna.api import operations as rest
from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Served
from sterna.api.operation_models import OperationDetailOut
from sterna.api.operations import OperationId
from sterna.api.web.forms import Form
from sterna.api.web.pages import page
from sterna.domain.access import Action
from sterna.domain.fleet.course import LEADS_TO, OperationStatus, Order
from sterna.domain.fleet.moves_svg import bars, draw_moves
from sterna.ports.operations import OperationRecord, Tried

router = APIRouter(include_in_schema=False)
AT_ONCE = 50
_OPERATE = [needs(Action.OPERATE)]


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
    shown = {"operation": found, "orders": orders, "final": found.status.final, "drawing": drawing(record, tried)}
    return page(request, "operation.html", **shown)


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
    return page(request, "undo.html", operation=found, preview=await rest.preview_undo(id, controller))


def _take(order: Order) -> None:
    @router.post(f"/operations/{{id}}/{order.value}", name=f"{order.value} operation", dependencies=_OPERATE)
    async def give_order(request: Request, id: OperationId, _fields: Form, controller: Served) -> RedirectResponse:
        """As `/v1`."""
        record = await controller.operate.order(id, order, actor_of(request).name)
        return RedirectResponse(f"/operations/{record.id}", HTTPStatus.SEE_OTHER)


for _order in Order:
    _take(_order)
