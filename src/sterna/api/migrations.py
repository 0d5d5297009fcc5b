"""`/v1/migrations`: start, list, show, abort."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Limit, MigrationId, Served, position
from sterna.api.migration_models import (
    MigrationDetailOut,
    MigrationIn,
    MigrationOut,
    MigrationsOut,
    TimelineItemOut,
    TimelineOut,
)
from sterna.api.problems import documented
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.access import Action
from sterna.domain.otlp import otlp_of
from sterna.domain.status import Status
from sterna.ports.fleet import Page

router = APIRouter(prefix="/v1", tags=["migrations"])
_READ = [needs(Action.READ)]
SVG = "image/svg+xml"
SVG_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""Opened by itself, a picture is a document of this API's origin."""


@router.post("/migrations", status_code=202, summary="Migrate a VM", dependencies=[needs(Action.MIGRATE)],
             responses={200: {"model": MigrationOut, "description": "This id was accepted before"},
                        **documented(404, 409, 422, 503)})  # fmt: skip
async def start_migration(
    wanted: MigrationIn, asking: Request, response: Response, controller: Served
) -> MigrationOut:
    """Accepted, or refused with every reason at once. 409 where the VM is in a migration already."""
    request = MigrateRequest(
        id=str(wanted.id) if wanted.id else "",
        vm=wanted.vm,
        destination=wanted.destination,
        asked=wanted.asked(),
        ignore_rules=wanted.ignore_rules,
        requested_by=actor_of(asking).name,
    )
    record, repeated = await controller.migrate(request)
    response.status_code = 200 if repeated else 202
    response.headers["Location"] = f"/v1/migrations/{record.id}"
    return MigrationOut.of(record)


@router.get("/migrations", summary="List migrations", dependencies=_READ, responses=documented(400, 422))
async def list_migrations(
    controller: Served,
    cursor: Cursor = None,
    limit: Limit = 50,
    vm: Annotated[str | None, Query(max_length=1024, description="Name or UUID.")] = None,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    id: Annotated[str, Query(description="Only ids that begin like this.", max_length=36)] = "",
) -> MigrationsOut:
    """Newest first."""
    before = position(cursor, "cursor", "use `next_cursor` of the previous page") if cursor is not None else None
    page = Page(
        before=before,
        limit=limit + 1,
        vm=vm,
        statuses=tuple(status or ()),
        id_prefix=id.lower(),
    )
    found = await controller.migrations(page)
    more = str(found[limit - 1].number) if len(found) > limit else None
    return MigrationsOut(migrations=[MigrationOut.of(r) for r in found[:limit]], next_cursor=more)


@router.get("/migrations/{id}", summary="Show a migration", dependencies=_READ, responses=documented(404))
async def show_migration(id: MigrationId, controller: Served) -> MigrationDetailOut:
    """One migration with its progress and its report."""
    record = await controller.migration(id)
    return MigrationDetailOut.with_report(record, await controller.report(record))


@router.get("/migrations/{id}/timeline", summary="Every step of both agents", dependencies=_READ,
            responses=documented(404))  # fmt: skip
async def show_timeline(id: MigrationId, controller: Served) -> TimelineOut:
    """In an order that can have been: by causality, never by comparing two hosts' clocks."""
    return TimelineOut(items=[TimelineItemOut.of(i) for i in await controller.timeline(id)])


@router.get("/migrations/{id}/diagram", summary="The run as a sequence diagram", dependencies=_READ,
            response_class=PlainTextResponse,
            responses={200: {"content": {SVG: {}}}, **documented(404, 422)})  # fmt: skip
async def show_diagram(
    id: MigrationId,
    controller: Served,
    format: Annotated[
        Literal["plantuml", "svg"], Query(description="`plantuml`: text for PlantUML. `svg`: a picture.")
    ] = "plantuml",
) -> Response:
    """What really happened, a rollback included."""
    if format == "plantuml":
        return PlainTextResponse(await controller.diagram(id))
    return Response(await controller.diagram(id, svg=True), media_type=SVG, headers=SVG_HEADERS)


@router.get("/migrations/{id}/trace", summary="The run as a trace of OpenTelemetry", dependencies=_READ,
            responses=documented(404))  # fmt: skip
async def show_trace(id: MigrationId, controller: Served) -> dict[str, Any]:
    """A request of OTLP/HTTP in its JSON encoding: one span for the migration and one for each step of both agents.
    Durations are those of one host's clock. The destination's times are shifted if it would otherwise have begun
    before it was asked to."""
    return otlp_of(await controller.trace(id), version("sterna"))


@router.post("/migrations/{id}/abort", status_code=202, summary="Abort a migration",
             dependencies=[needs(Action.ABORT)], responses=documented(404, 409, 503, 504))  # fmt: skip
async def abort_migration(id: MigrationId, controller: Served) -> MigrationOut:
    """Before the switch-over everything is rolled back and it ends `cancelled`; after it, 409: it is on the
    destination already."""
    return MigrationOut.of(await controller.abort(id))


@router.post("/migrations/{id}/post-copy", status_code=202, summary="Switch to post-copy",
             dependencies=[needs(Action.POST_COPY)],
             responses=documented(404, 409, 503, 504))  # fmt: skip
async def switch_to_postcopy(id: MigrationId, controller: Served) -> MigrationOut:
    """As soon as the memory is being copied, the guest runs on the destination and the rest follows. 409 where the
    migration was not started with `may: ["postcopy"]`, or is over."""
    return MigrationOut.of(await controller.switch_to_postcopy(id))
