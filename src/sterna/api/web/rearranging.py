"""The pages of a rebalance and a bring-back: each is shown before it begins."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Served
from sterna.api.operation_models import OperationIn, PreviewOut
from sterna.api.web.before_after import changes, ours
from sterna.api.web.forms import Fields, Form, validated
from sterna.api.web.pages import page
from sterna.domain.access import Action
from sterna.domain.fleet.course import OperationKind

router = APIRouter(include_in_schema=False)


def wanted_of(fields: Fields) -> OperationIn:
    """What the form asks for. Raises RequestValidationError."""
    asked = {
        "id": fields.text("id") or None,
        "kind": fields.text("kind"),
        "hosts": fields.some("hosts"),
        "may": fields.some("may") or None,
        "policy": fields.text("policy") or None,
        "reason": fields.text("reason"),
    }
    threshold = fields.number("threshold_percent", times=0.01)
    return validated(OperationIn, asked | ({"threshold": threshold} if threshold is not None else {}))


@router.post("/rearrangements/preview", dependencies=[needs(Action.PLAN)])
async def preview(request: Request, fields: Form, controller: Served) -> HTMLResponse:
    """What would be moved, and what would stay and why. Changes nothing."""
    wanted = wanted_of(fields)
    found = PreviewOut.of(await controller.operate.preview(wanted.asked("")))
    moves = ours(found.moves, ())
    return page(
        request,
        "rearrangement.html",
        wanted=wanted,
        preview=found,
        moves=moves,
        others=[move for move in found.moves if move not in moves],
        changes=changes(await controller.registry.hosts(), await controller.fleet.vms(), moves, ()),
        off=wanted.kind is OperationKind.REBALANCE and not controller.operate.may_rebalance,
        id=str(uuid4()),
    )


@router.post("/rearrangements", dependencies=[needs(Action.OPERATE)])
async def begin(request: Request, fields: Form, controller: Served) -> RedirectResponse:
    """As `POST /v1/operations`."""
    record, _ = await controller.operate.begin(wanted_of(fields).asked(actor_of(request).name))
    return RedirectResponse(f"/operations/{record.id}", HTTPStatus.SEE_OTHER)
