"""The page of a host: its VMs, and what can be done with it. A drain is shown before it begins."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from sterna.api import fleet as rest
from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Served
from sterna.api.fleet_models import HostPatch, VmOut
from sterna.api.operation_models import OperationIn, PreviewOut
from sterna.api.web.before_after import bounds_of, changes, ours
from sterna.api.web.fleet import UNDER_WAY
from sterna.api.web.forms import Fields, Form, validated
from sterna.api.web.pages import page
from sterna.domain.access import Action
from sterna.domain.model import GuestState
from sterna.domain.policies import POLICIES
from sterna.domain.status import Status
from sterna.ports.fleet import MigrationRecord, Page

router = APIRouter(include_in_schema=False)
AT_ONCE = 100
"""VMs on one page."""
CANNOT_MOVE = {
    GuestState.PAUSED: "it is paused",
    GuestState.SHUTOFF: "it is off: only running VMs are migrated",
    GuestState.UNKNOWN: "its state is unknown",
}


MOVING = Page(statuses=UNDER_WAY, limit=500, holding=True)
ENDED = Page(statuses=tuple(status for status in Status if status.final), limit=200)
LATEST = 10
"""Of them, those of one host that are shown."""


def ends_of(record: MigrationRecord) -> tuple[str, str]:
    """Its two hosts."""
    return record.migration.source, record.migration.destination


def address(name: str) -> str:
    """Of a host's page."""
    return f"/hosts/{quote(name, safe='')}"


def why_not(vm: VmOut) -> str:
    """Why it cannot be moved now, as far as its state shows; '' where it may be possible."""
    if vm.migration_id:
        return "it is being migrated"
    return next((why for state, why in CANNOT_MOVE.items() if vm.state == state), "")


@router.get("/hosts/{name}", dependencies=[needs(Action.READ)])
async def show_host(request: Request, name: str, controller: Served, cursor: Cursor = None) -> HTMLResponse:
    """One host."""
    host = await rest.show_host(name, controller)
    listed = await rest.list_vms(controller, host=name, cursor=cursor, limit=AT_ONCE)
    return page(
        request,
        "host.html",
        host=host,
        domain=(await controller.failure_domains()).get(name, ""),
        vms=[(vm, why_not(vm)) for vm in listed.vms],
        link_bytes_s=(await controller.registry.host(name)).facts.abilities.link_bytes_s,
        migrations=[one for one in await controller.migrations(MOVING) if name in ends_of(one)],
        ended=[one for one in await controller.fleet.migrations(ENDED) if name in ends_of(one)][:LATEST],
        looked_at=ENDED.limit,
        operations=[one for one in await controller.fleet.unfinished_operations() if name in one.hosts],
        next_cursor=listed.next_cursor,
        policies=sorted(POLICIES),
    )


@router.post("/hosts/{name}/close", dependencies=[needs(Action.MAINTENANCE)])
async def close_host(name: str, fields: Form, controller: Served) -> RedirectResponse:
    """It takes no VMs from now on."""
    return await _patch(name, {"maintenance": True, "reason": fields.text("reason")}, controller)


@router.post("/hosts/{name}/open", dependencies=[needs(Action.MAINTENANCE)])
async def open_host(name: str, _fields: Form, controller: Served) -> RedirectResponse:
    """It takes VMs again."""
    return await _patch(name, {"maintenance": False}, controller)


async def _patch(name: str, change: dict[str, Any], controller: Served) -> RedirectResponse:
    await rest.patch_host(name, validated(HostPatch, change), controller)
    return RedirectResponse(address(name), HTTPStatus.SEE_OTHER)


def drain_of(fields: Fields) -> OperationIn:
    """What the form asks for. Raises RequestValidationError."""
    return validated(
        OperationIn,
        {
            "id": fields.text("id") or None,
            "hosts": fields.some("hosts"),
            "may": fields.some("may") or None,
            "policy": fields.text("policy") or None,
            "finish_within_s": fields.number("finish_within_min", times=60.0),
            "even_if_late": fields.ticked("even_if_late"),
            "reason": fields.text("reason"),
        },
    )


@router.post("/drains/preview", dependencies=[needs(Action.PLAN)])
async def preview_drain(request: Request, fields: Form, controller: Served) -> HTMLResponse:
    """What would be moved, what would stay and why, and how long it takes. Changes nothing."""
    wanted = drain_of(fields)
    found = await controller.operate.preview(wanted.asked(""))
    preview = PreviewOut.of(found)
    moves = ours(preview.moves, wanted.hosts)
    return page(
        request,
        "drain.html",
        wanted=wanted,
        preview=preview,
        moves=moves,
        others=[move for move in preview.moves if move not in moves],
        bounds=bounds_of(found.plan.bounds),
        changes=changes(await controller.registry.hosts(), await controller.fleet.vms(), moves, wanted.hosts),
        id=str(uuid4()),
    )


@router.post("/drains", dependencies=[needs(Action.OPERATE)])
async def begin_drain(request: Request, fields: Form, controller: Served) -> RedirectResponse:
    """As `POST /v1/operations`."""
    record, _ = await controller.operate.begin(drain_of(fields).asked(actor_of(request).name))
    return RedirectResponse(f"/operations/{record.id}", HTTPStatus.SEE_OTHER)
