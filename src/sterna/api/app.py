"""The application: routes, problems, and the controller's life."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from sterna.api import (
    cpus,
    doctor,
    documentation,
    enrolments,
    external_events,
    fleet,
    health,
    joining,
    metrics,
    migrations,
    notifications,
    operations,
    plans,
    problems,
    queue,
    rules,
    streams,
    tokens,
    tuning,
)
from sterna.api.access import AccessRules, AuthenticationMiddleware, Entrance, action_of
from sterna.api.compute.app import create_compute_app
from sterna.api.compute.call import Setup
from sterna.api.compute.middleware import ComputeMiddleware
from sterna.api.sessions import Sessions
from sterna.api.web import errors
from sterna.api.web.parts import PAGES
from sterna.controller.controller import Controller
from sterna.controller.intents.origin_shares import OriginShares
from sterna.domain.access import NEEDS, Action
from sterna.ports.identity import CertificateIssuer
from sterna.ports.metrics import Scraped

OPEN_PARTS = (health, joining)
FLEET_PARTS = fleet, enrolments, migrations, operations, rules, queue, plans
PARTS = (
    *FLEET_PARTS,
    streams,
    tuning,
    tokens,
    external_events,
    metrics,
    cpus,
    notifications,
    doctor,
    documentation,
)


_TOKEN = Depends(HTTPBearer(auto_error=False, scheme_name="token", description="Output of `sterna token create`."))
"""For the OpenAPI document only: `AuthenticationMiddleware` has looked at it before."""


def routes() -> list[APIRoute]:
    """All routes. Raises TypeError for one of another kind, whose action could not be known."""
    found = []
    for route in (route for part in (*OPEN_PARTS, *PAGES, *PARTS) for route in part.router.routes):
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is not an APIRoute")
        found.append(route)
    return found


def public_paths(*, with_ca: bool = True) -> frozenset[str]:
    """The paths that need no user. Hosts have nothing to ask of a controller without a CA. Raises TypeError for a
    route that does not name its action.
    """
    found = set()
    for route in routes():
        action = action_of(route)
        if action is None:
            raise TypeError(f"{route.path} does not name one action")
        if NEEDS[action] is None and (with_ca or action is not Action.JOIN):
            found.add(route.path)
    return frozenset(found)


@cache
def _whole(parts: tuple[ModuleType, ...]) -> APIRouter:
    """All routes. Applications share them, with what FastAPI works out about each at the first request: in a test
    that takes it longer than the rest of the request.
    """
    whole = APIRouter()
    for part in (*OPEN_PARTS, *PAGES):
        whole.include_router(part.router)
    for part in parts:
        whole.include_router(part.router, responses=problems.documented(401, 403), dependencies=[_TOKEN])
    return whole


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with what holds for all routes."""
        if self.openapi_schema is None:
            problems.complete(super().openapi())
        return super().openapi()


def create_app(
    controller: Controller,
    rules: AccessRules | None = None,
    desk: CertificateIssuer | None = None,
    compute: Setup | None = None,
    scraped: Scraped | None = None,
) -> FastAPI:
    """`/v1` and the pages over `controller`, which is started and stopped with the application. Without `rules` it
    knows the tokens of the records, and the users of this machine that come through a Unix socket. `desk`: of the
    CA, where it is on this machine. `compute`: with `/compute`. `scraped`: what `/metrics` serves."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await controller.start()
        try:
            yield
        finally:
            await controller.stop()

    app = _Application(
        title="Sterna",
        summary="Live migration of running KVM virtual machines between libvirt hosts.",
        description="Errors are RFC 9457 problem details with a list of reasons, each with a fix.",
        version=version("sterna"),
        lifespan=life,
        openapi_url=None,  # its own route, for those who may read
        docs_url=None,
        redoc_url=None,
        routes=_whole(PARTS).routes,
    )
    app.state.controller, app.state.desk = controller, desk
    app.state.metrics = scraped
    app.state.streams, app.state.joining = Counter(), OriginShares()
    app.state.rules, app.state.sessions = rules or AccessRules(), Sessions()
    problems.install(app, routes())
    errors.install(app)
    for route in routes():
        role = NEEDS[action] if (action := action_of(route)) else None
        route.openapi_extra = {"x-role": str(role)} if role else None
    public = public_paths(with_ca=desk is not None)
    entrance = Entrance(app.state.rules, public, app.state.sessions, errors.refuse)
    app.add_middleware(AuthenticationMiddleware, controller=controller, entrance=entrance)
    if compute is not None:
        inner = create_compute_app(controller)
        app.add_middleware(ComputeMiddleware, inner=inner, controller=controller, setup=compute)
    return app
