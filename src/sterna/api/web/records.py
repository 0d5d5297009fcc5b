"""The pages of the audit log, of leftovers, and of the forecasts' accuracy."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from sterna.api import fleet as rest
from sterna.api import tokens
from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.fleet_models import AuditIn
from sterna.api.web.forms import Form, validated
from sterna.api.web.pages import page
from sterna.domain.access import Action

router = APIRouter(include_in_schema=False)
MEASURES = (("time", "total time"), ("downtime", "downtime"), ("bytes_sent", "bytes sent"))


@router.get("/log", dependencies=[needs(Action.LOG)])
async def show_log(
    request: Request,
    controller: Served,
    actor: Annotated[str, Query(max_length=255)] = "",
    action: Annotated[str, Query(max_length=32)] = "",
    target: Annotated[str, Query(max_length=255)] = "",
    cursor: Annotated[str | None, Query(max_length=20)] = None,
) -> HTMLResponse:
    """Who has asked for what, newest first."""
    known = Action(action) if action in set(Action) else None
    wanted = tokens.Filters(actor=actor, action=known, target=target, cursor=cursor)
    listed = await tokens.show_log(controller, wanted)
    given = {"actor": actor, "action": action, "target": target}
    query = urlencode({name: value for name, value in given.items() if value})
    return page(request, "log.html", listed=listed, given=given, actions=list(Action), query=query)


@router.get("/audit", dependencies=[needs(Action.AUDIT)])
async def audit_form(request: Request, controller: Served) -> HTMLResponse:
    """Where to look for leftovers."""
    return await _audit(request, controller)


@router.post("/audit", dependencies=[needs(Action.AUDIT)])
async def audit(request: Request, fields: Form, controller: Served) -> HTMLResponse:
    """What no open migration owns, with the evidence. A repair needs the role that `/v1` needs for it."""
    wanted = validated(AuditIn, {"host": fields.text("host") or None, "repair": fields.ticked("repair")})
    return await _audit(request, controller, wanted)


async def _audit(request: Request, controller: Served, wanted: AuditIn | None = None) -> HTMLResponse:
    found = await rest.audit(wanted, controller, request) if wanted is not None else None
    hosts = [host.name for host in await controller.registry.hosts()]
    return page(request, "audit.html", hosts=hosts, wanted=wanted, found=found)


@router.get("/accuracy", dependencies=[needs(Action.READ)])
async def show_accuracy(request: Request, controller: Served) -> HTMLResponse:
    """Forecast against actual."""
    found = await controller.accuracy()
    return page(request, "accuracy.html", measures=[(words, getattr(found, name)) for name, words in MEASURES])
