"""The application: routes, problems, and the controller's life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from sterna.api import external_events, fleet, migrations, plans, problems, streams, tuning
from sterna.api.leaving import LeavingClients
from sterna.controller.controller import Controller


def create_app(controller: Controller) -> FastAPI:
    """`/v1` over `controller`, which is started and stopped with the application."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await controller.start()
        try:
            yield
        finally:
            await controller.stop()

    app = FastAPI(
        title="Sterna",
        summary="Live migration of running KVM virtual machines between libvirt hosts.",
        description="Errors are RFC 9457 problem details with a list of reasons, each with what would fix it.",
        version=version("sterna"),
        lifespan=life,
    )
    app.state.controller = controller
    problems.install(app)
    app.add_middleware(LeavingClients)
    for part in (fleet, migrations, plans, streams, tuning, external_events):
        app.include_router(part.router)
    return app
