"""The Compute API as an application of its own, with errors of its own."""

from __future__ import annotations

from types import ModuleType

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from sterna.api.compute import (
    diagnostics,
    discovery,
    events,
    faults,
    flavors,
    hypervisors,
    instance_actions,
    interfaces,
    migrations,
    server_actions,
    server_migrations,
    servers,
    services,
    volumes,
    zones,
)
from sterna.api.compute.call import rule_of
from sterna.controller.controller import Controller

PARTS: tuple[ModuleType, ...] = (
    discovery,
    servers,
    server_actions,
    server_migrations,
    volumes,
    interfaces,
    diagnostics,
    instance_actions,
    migrations,
    services,
    hypervisors,
    flavors,
    zones,
    events,
)


def routes() -> list[APIRoute]:
    """All there are. Raises TypeError for one that does not name one rule."""
    found = []
    for route in (route for part in PARTS for route in part.router.routes):
        if not isinstance(route, APIRoute) or rule_of(route) is None:
            raise TypeError(f"{route} does not name one rule")
        found.append(route)
    return found


def create_compute_app(controller: Controller) -> FastAPI:
    """`/compute` without its middleware, which has authenticated the user before a request comes here."""
    whole = APIRouter()
    for part in PARTS:
        whole.include_router(part.router)
    routes()
    app = FastAPI(
        title="Sterna's Compute API",
        openapi_url=None,  # the Compute API has its own documents
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        routes=whole.routes,
    )
    app.state.controller = controller
    faults.install(app)
    return app
