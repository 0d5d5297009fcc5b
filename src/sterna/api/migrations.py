"""`/v1/migrations`: start, list, show, abort."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Limit, MigrationId, Served, position
from sterna.api.migration_models import (
    DefinitionDiffOut,
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
             responses={200: {"model": MigrationOut, "description": "This ID was accepted before"},
                        **documented(404, 409, 422, 503)})  # fmt: skip
async def start_migration(
    wanted: MigrationIn, asking: Request, response: Response, controller: Served
) -> MigrationOut:
    """The request is accepted, or refused with every reason at once. 409 if the VM is already in a migration."""
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
    id: Annotated[str, Query(description="Only IDs that begin with this.", max_length=36)] = "",
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
    """A migration with its progress and its report."""
    record = await controller.migration(id)
    return MigrationDetailOut.with_report(record, await controller.report(record))


@router.get("/migrations/{id}/timeline", summary="Show every step of both agents", dependencies=_READ,
            responses=documented(404))  # fmt: skip
async def show_timeline(id: MigrationId, controller: Served) -> TimelineOut:
    """In a possible order: by causality, never by comparing the clocks of two hosts."""
    return TimelineOut(items=[TimelineItemOut.of(i) for i in await controller.timeline(id)])


@router.get("/migrations/{id}/definition-diff", summary="Show what is different in the VM's definition",
            dependencies=_READ, responses=documented(404))  # fmt: skip
async def show_definition_diff(id: MigrationId, controller: Served) -> DefinitionDiffOut:
    """The definition before and after the migration, of the running guest and of its next start, with the reason
    for each difference. It is compared as libvirt migrates it, without what libvirt chooses at each start."""
    return DefinitionDiffOut.of(await controller.definition_diff(id))


@router.get("/migrations/{id}/diagram", summary="Draw a migration as a sequence diagram", dependencies=_READ,
            response_class=PlainTextResponse,
            responses={200: {"content": {SVG: {}}}, **documented(404, 422)})  # fmt: skip
async def show_diagram(
    id: MigrationId,
    controller: Served,
    format: Annotated[
        Literal["plantuml", "svg"], Query(description="`plantuml`: text for PlantUML. `svg`: a picture.")
    ] = "plantuml",
) -> Response:
    """Shows what really happened, including a rollback."""
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
    """Before the switch-over everything is rolled back, and the migration ends as `cancelled`. After it, 409: the
    guest is already on the destination."""
    return MigrationOut.of(await controller.abort(id))


@router.post("/migrations/{id}/post-copy", status_code=202, summary="Switch to post-copy",
             dependencies=[needs(Action.POST_COPY)],
             responses=documented(404, 409, 503, 504))  # fmt: skip
async def switch_to_postcopy(id: MigrationId, controller: Served) -> MigrationOut:
    """As soon as the copy of the memory has started, the guest resumes on the destination, and the rest of its
    memory follows. 409 if the migration was not started with `may: ["postcopy"]`, or has ended."""
    return MigrationOut.of(await controller.switch_to_postcopy(id))
