"""`/os-migrations`: all migrations, or those that a project has asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute import migration_view
from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import at, boolean, check_query, instant, limit_of, next_page
from sterna.domain.compute.policies import Rule
from sterna.domain.compute.statuses import statuses_called
from sterna.domain.errors import NotFound
from sterna.domain.options import Requester
from sterna.ports.fleet import MigrationRecord, Page

router = APIRouter(prefix="/v2.1/os-migrations")
READ_AT_ONCE = 500
MOST_READ = 20_000
"""So far back a list goes; older ones are in Sterna's own API."""
Filter = Callable[[MigrationRecord, str], bool]
_NOBODY = Requester(user_id="", project_id="")


def _asked_by(record: MigrationRecord) -> Requester:
    return record.migration.options.requester or _NOBODY


_FILTERS: dict[str, Filter] = {
    "instance_uuid": lambda r, v: r.migration.vm_uuid == v.lower(),
    "host": lambda r, v: v in (r.migration.source, r.migration.destination),
    "source_compute": lambda r, v: r.migration.source == v,
    "hidden": lambda _r, v: not boolean(v, "hidden"),
    "migration_type": lambda r, v: v == "live-migration",
    "user_id": lambda r, v: _asked_by(r).user_id == v,
    "project_id": lambda r, v: _asked_by(r).project_id == v,
}
_WITH_VERSION = {
    "user_id": 80,
    "project_id": 80,
    "changes-since": 59,
    "changes-before": 66,
    "limit": 59,
    "marker": 59,
}
_KNOWN = {*_FILTERS, *_WITH_VERSION, "status"}


@router.get("", dependencies=[rule(Rule.MIGRATIONS)])
async def list_migrations(call: Asking, request: Request) -> dict[str, Any]:
    """Newest first from 2.59 on, by number before."""
    query = request.query_params
    if call.has(59):
        check_query(query, {name for name in _KNOWN if call.has(_WITH_VERSION.get(name, 1))})
    if query.get("project_id") != call.known_user.project_id or not call.has(80):
        call.require(Rule.MIGRATIONS_OF_ALL)
    limit = limit_of(query) if call.has(59) else MOST_READ
    found = await _found(call, query, limit + 1)
    links = None
    if not call.has(59):
        found.reverse()
    elif len(found) > limit or ("limit" in query and found and len(found) == limit):
        found = found[:limit]
        links = [next_page(call, query, "os-migrations", limit, found[-1].id)] if found else None
    hosts = {host.name: host for host in await call.controller.registry.hosts()}
    shown = call.may(Rule.MIGRATION_HOSTS)
    views = [migration_view.listed(call, record, hosts, show_hosts=shown) for record in found]
    return {"migrations": views} | ({} if links is None else {"migrations_links": links})


async def _found(call: Call, query: QueryParams, most: int) -> list[MigrationRecord]:
    """Newest first, without rehearsals: nothing moves in those. No more are read than are wanted."""
    statuses = statuses_called(query["status"]) if "status" in query else ()
    since, before = instant(query, "changes-since"), instant(query, "changes-before")
    if since is not None and before is not None and before < since:
        raise HTTPException(400, "changes-since is later than changes-before")
    if "status" in query and not statuses:
        return []

    def passes(record: MigrationRecord) -> bool:
        return (
            not record.migration.options.rehearse
            and all(passes(record, query[name]) for name, passes in _FILTERS.items() if name in query)
            and (since is None or at(record.updated_at) >= since)
            and (before is None or at(record.updated_at) <= before)
        )

    page = Page(
        vm=query.get("instance_uuid"), statuses=statuses, limit=READ_AT_ONCE, before=await _behind(call, query)
    )
    found: list[MigrationRecord] = []
    for _ in range(MOST_READ // READ_AT_ONCE):
        read = await call.controller.migrations(page)
        found += filter(passes, read)
        if len(read) < page.limit or len(found) >= most:
            break
        page = page.model_copy(update={"before": read[-1].number})
    return found[:most]


async def _behind(call: Call, query: QueryParams) -> int | None:
    """The number of the migration that `marker` names; None without one. Raises HTTPException."""
    marker = query.get("marker")
    if marker is None or not call.has(59):
        return None
    try:
        return (await call.controller.fleet.migration(marker.lower())).number
    except NotFound:
        raise HTTPException(400, f"the marker {marker[:64]} is not a migration") from None
