"""The pages of VMs: where each is, what a migration would meet, and its beginning."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from sterna.api import fleet as rest
from sterna.api import migrations, plans
from sterna.api.access import needs
from sterna.api.dependencies import Cursor, Served
from sterna.api.fleet_models import VmDetailOut, VmOut
from sterna.api.migration_models import MigrationIn
from sterna.api.queue import PlacementOut
from sterna.api.web import objective
from sterna.api.web.forms import Fields, Form, validated
from sterna.api.web.pages import page
from sterna.controller.intents.plan_migration import Plan
from sterna.domain.access import Action
from sterna.domain.forecast import Mode
from sterna.domain.model import GuestState
from sterna.domain.policies import POLICIES
from sterna.ports.fleet import Page

router = APIRouter(include_in_schema=False)
AT_ONCE, LATEST = 100, 10
BEST = 5
"""Hosts that a plan names besides the one that it is about."""
FAR = 1.25
"""A forecast downtime that may be off by this factor is shown as a range."""
MODES = {
    Mode.PRECOPY: "plain pre-copy",
    Mode.THROTTLE: "throttling the guest",
    Mode.POSTCOPY: "with post-copy",
    Mode.PAUSE: "pausing the guest",
}


@router.get("/vms", dependencies=[needs(Action.READ)])
async def list_vms(
    request: Request,
    controller: Served,
    name: Annotated[str, Query(max_length=255)] = "",
    state: Annotated[str, Query(max_length=16)] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """VMs by name, with a filter."""
    states = [GuestState(state)] if state in set(GuestState) else None
    listed = await rest.list_vms(controller, name=name, state=states, cursor=cursor, limit=AT_ONCE)
    query = urlencode({key: value for key, value in (("name", name), ("state", state)) if value})
    shown = {"listed": listed, "name": name, "state": state, "states": list(GuestState), "query": query}
    return page(request, "vms.html", **shown)


async def _about(vm: VmOut, controller: Served) -> dict[str, Any]:
    """What the page of a VM has beside the VM."""
    hosts = [host.name for host in await controller.registry.hosts() if host.usable and host.name != vm.host]
    return {
        "vm": vm,
        "hosts": hosts,
        "policies": sorted(POLICIES),
        "migrations": await controller.migrations(Page(vm=vm.uuid, limit=LATEST)),
        "id": str(uuid4()),
        "modes": MODES,
        "far": FAR,
    }


@router.get("/vms/{vm}", dependencies=[needs(Action.READ)])
async def show_vm(
    request: Request, vm: str, controller: Served, destination: Annotated[str, Query(max_length=255)] = ""
) -> HTMLResponse:
    """One VM, by name or UUID. `destination`: a host that its form has chosen already."""
    found = await rest.show_vm(vm, controller)
    asked = Fields({"destination": [destination]})
    return page(request, "vm.html", **await _about(found, controller), plan=None, asked=asked)


@router.get("/vms/{vm}/destinations", dependencies=[needs(Action.READ)])
async def rank_destinations(request: Request, vm: str, controller: Served) -> HTMLResponse:
    """All hosts for a VM, the best first, and what keeps it from the others. Starts nothing, and asks no host."""
    placement = PlacementOut.of(await controller.place(vm))
    possible = [one for one in placement.hosts if not one.refusals]
    against: dict[tuple[str, ...], list[str]] = {}
    for one in placement.hosts:
        if one.refusals:
            against.setdefault(tuple(one.refusals), []).append(one.host)
    return page(request, "destinations.html", placement=placement, possible=possible, against=against)


@router.post("/vms/{vm}/plan", dependencies=[needs(Action.PLAN)])
async def plan_vm(request: Request, vm: str, fields: Form, controller: Served) -> HTMLResponse:
    """What a migration would meet. Changes nothing; takes some seconds, in which the dirty rate is measured."""
    data = objective.of_form(fields) | {"vm": vm, "destination": fields.text("destination") or None}
    wanted = validated(plans.PlanIn, data)
    plan: Plan = await controller.plan(wanted.vm, wanted.destination, wanted.asked())
    found = VmDetailOut(**VmOut.of(plan.vm).model_dump(), details=None)
    ranked = PlacementOut.of(await controller.place(plan.vm.uuid)).hosts
    best = [one for one in ranked if not one.refusals][:BEST]
    shown = {"plan": plan, "best": best, "asked": fields}
    return page(request, "vm.html", **await _about(found, controller), **shown)


@router.post("/vms/{vm}/migrate", dependencies=[needs(Action.MIGRATE)])
async def migrate_vm(request: Request, vm: str, fields: Form, controller: Served) -> RedirectResponse:
    """As `POST /v1/migrations`. A form that is sent twice has one id, and makes one migration."""
    more = {"id": fields.text("id") or None, "vm": vm, "destination": fields.text("destination") or None}
    wanted = validated(MigrationIn, objective.of_form(fields) | more)
    record = await migrations.start_migration(wanted, request, Response(), controller)
    return RedirectResponse(f"/migrations/{record.id}", HTTPStatus.SEE_OTHER)
