"""The pages of migrations: all of them, and one as it happens and as it was."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from sterna.api import migrations as rest
from sterna.api.access import needs
from sterna.api.dependencies import Cursor, MigrationId, Served
from sterna.api.migration_models import MigrationOut, TimelineItemOut
from sterna.api.tuning import TuneIn
from sterna.api.web.differences import devices_of
from sterna.api.web.forms import Form, validated
from sterna.api.web.pages import page
from sterna.controller.controller import Controller
from sterna.domain.access import Action
from sterna.domain.definition_diff import definition_diff
from sterna.domain.diagram_svg import draw_svg
from sterna.domain.entries.notes import RehearsedCopy
from sterna.domain.journal import Entry, Role
from sterna.domain.policies import May
from sterna.domain.progress import Progress
from sterna.domain.report import build_report
from sterna.domain.status import Status
from sterna.domain.timeline import build_timeline
from sterna.ports.fleet import MigrationRecord

router = APIRouter(include_in_schema=False)
AT_ONCE = 50
MOST_POINTS = 600
"""Of a chart, when its page is loaded."""
BEFORE_PIVOT = frozenset({Status.QUEUED, Status.PREPARING, Status.MIGRATING})
PHASES = (
    ("prepare", frozenset({Status.QUEUED, Status.PREPARING})),
    ("copy", frozenset({Status.MIGRATING, Status.POST_COPY, Status.RECOVERING})),
    ("hand over", frozenset({Status.POST_MIGRATING})),
    ("done", frozenset({Status.COMPLETED})),
)
PARTS = {
    "last_pass_ms": "last pass, guest still running",
    "stop_ms": "stopping the guest on the source",
    "device_state_ms": "sending the rest and the device state",
    "resume_ms": "hand-over and resume",
    "network_ms": "notifying the network",
}
"""Of the downtime, in words."""


@router.get("/migrations", dependencies=[needs(Action.READ)])
async def list_migrations(
    request: Request,
    controller: Served,
    vm: Annotated[str, Query(max_length=1024)] = "",
    status: Annotated[str, Query(max_length=16)] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Newest first."""
    statuses = [Status(status)] if status in set(Status) else None
    listed = await rest.list_migrations(controller, cursor, AT_ONCE, vm=vm or None, status=statuses)
    query = urlencode({key: value for key, value in (("vm", vm), ("status", status)) if value})
    shown = {"listed": listed, "vm_name": vm, "status": status, "statuses": list(Status), "query": query}
    return page(request, "migrations.html", **shown)


Point = tuple[float, int | None, float | None, int | None]
"""Of the chart: seconds of the copy, bytes left, bytes/s sent, bytes/s dirtied."""


def point_of(progress: Progress) -> Point | None:
    """The newest one; None before the copy."""
    if progress.elapsed_ms is None:
        return None
    left, sent, dirtied = progress.bytes_remaining, progress.rate_bytes_s, progress.dirty_rate_bytes_s
    return progress.elapsed_ms / 1000, left, sent, dirtied


def points_of(entries: list[Entry]) -> list[Point]:
    """What the source's journal has of its copy."""
    found: list[Point] = []
    for entry in entries:
        sample = RehearsedCopy.read(entry).sample if entry.role is Role.SOURCE and entry.row == "M3" else None
        if sample is None or sample.elapsed_ms is None:
            continue
        parts = [part for part in (sample.memory_remaining, sample.disk_remaining) if part is not None]
        left = sum(parts) if parts else None
        found.append((sample.elapsed_ms / 1000, left, sample.memory_rate, sample.dirty_rate))
    return sorted(found)[:: max(1, len(found) // MOST_POINTS)]


def now_of(record: MigrationRecord) -> dict[str, Any]:
    """What the page says of this moment, and what may be asked for."""
    wanted = record.migration.options.objective
    return {
        "migration": MigrationOut.of(record),
        "final": record.status.final,
        "can_abort": record.status in BEFORE_PIVOT,
        "can_switch": record.status is Status.MIGRATING and wanted is not None and May.POSTCOPY in wanted.may,
        "phases": [(words, record.status in statuses) for words, statuses in PHASES],
        "point": point_of(record.progress),
    }


async def story_of(record: MigrationRecord, controller: Controller) -> dict[str, Any]:
    """What has happened so far: report, timeline of both agents, diagram."""
    entries = await controller.fleet.entries(record.id)
    items = build_timeline(record.migration, entries)
    return {
        "report": build_report(record.migration, entries),
        "parts": PARTS,
        "items": [TimelineItemOut.of(item) for item in items],
        "devices": devices_of(entries),
        "diff": definition_diff(record.migration, record.status, entries),
        "diagram": Markup(draw_svg(record.migration, items)),  # noqa: S704 - it escapes what it draws
        "points": points_of(entries),
    }


@router.get("/migrations/{id}", dependencies=[needs(Action.READ)])
async def show_migration(request: Request, id: MigrationId, controller: Served) -> HTMLResponse:
    """One migration; live while it goes on."""
    after = await controller.fleet.last_event()  # before the rest: what comes meanwhile comes again
    record = await controller.migration(id)
    shown = now_of(record) | await story_of(record, controller)
    return page(request, "migration.html", **shown, after=after)


@router.get("/migrations/{id}/diagram.svg", dependencies=[needs(Action.READ)])
async def save_diagram(id: MigrationId, controller: Served) -> Response:
    """As `/v1`, for a browser that has a session."""
    return await rest.show_diagram(id, controller, format="svg")


def _back(id: str) -> RedirectResponse:
    return RedirectResponse(f"/migrations/{id}", HTTPStatus.SEE_OTHER)


@router.post("/migrations/{id}/abort", dependencies=[needs(Action.ABORT)])
async def abort_migration(id: MigrationId, _fields: Form, controller: Served) -> RedirectResponse:
    """As `/v1`."""
    return _back((await controller.abort(id)).id)


@router.post("/migrations/{id}/post-copy", dependencies=[needs(Action.POST_COPY)])
async def switch_to_postcopy(id: MigrationId, _fields: Form, controller: Served) -> RedirectResponse:
    """As `/v1`."""
    return _back((await controller.switch_to_postcopy(id)).id)


@router.post("/migrations/{id}/tune", dependencies=[needs(Action.TUNE)])
async def tune_migration(id: MigrationId, fields: Form, controller: Served) -> RedirectResponse:
    """As `/v1`; an empty limit is none."""
    limit = fields.whole("bandwidth_mib_s", times=2**20)
    wanted = TuneIn(bandwidth_bytes_s=None) if limit is None else validated(TuneIn, {"bandwidth_bytes_s": limit})
    return _back((await controller.tune(id, wanted.bandwidth_bytes_s)).id)
