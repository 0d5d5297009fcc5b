"""`/v1/health` and `/v1/version`: for load balancers, without authentication."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.fleet_models import HealthOut
from sterna.domain.access import Action, Actor, may

router = APIRouter(prefix="/v1", tags=["health"], dependencies=[needs(Action.PROBE)])


_AWAY: dict[int | str, dict[str, Any]] = {503: {"model": HealthOut, "description": HTTPStatus(503).phrase}}
"""Without the bus it says so in its own words; without the database it answers with a problem."""


class VersionOut(BaseModel):
    """Version of Sterna."""

    version: str


@router.get("/version", summary="Version of this controller")
async def show_version() -> VersionOut:
    """Needs neither the database nor the message bus."""
    return VersionOut(version=version("sterna"))


@router.get("/health", summary="Health of this controller", responses=_AWAY)
async def health(controller: Served, request: Request, response: Response) -> HealthOut:
    """Responds with 200 only if the database responds and the message bus is connected. Without the bus this
    controller can start nothing, and its information about hosts is old. Users with the role viewer also see which
    hosts cannot be used, and why; for others `problems` is empty. Such hosts do not change the HTTP status."""
    bus = controller.bus_state()
    response.status_code = 200 if bus.connected else 503
    away, usable = await controller.registry.unusable()
    answer = HealthOut.of(away, usable, bus)
    actor: Actor | None = request.scope["state"].get("actor")
    return answer if actor is not None and may(actor.role, Action.READ) else answer.for_anybody()
