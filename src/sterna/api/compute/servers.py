"""`/servers`: list and show, and their tags."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute import server_filters, server_sorting, server_view
from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import boolean, check_query, page
from sterna.controller.records.servers import Server
from sterna.domain.compute.policies import Rule

router = APIRouter(prefix="/v2.1/servers")
_LIST = [rule(Rule.SERVERS)]
_ALL_TENANTS = ("all_tenants", "all_projects")
KNOWN = {*server_filters.KNOWN, *server_sorting.PARAMETERS, *_ALL_TENANTS, "limit", "marker"}


@router.get("", dependencies=_LIST)
async def list_servers(call: Asking, request: Request) -> dict[str, Any]:
    """IDs and names."""
    found, links = await _page(call, request, "servers")
    return {"servers": [server_view.brief(call, one) for one in found]} | links


@router.get("/detail", dependencies=_LIST)
async def list_details(call: Asking, request: Request) -> dict[str, Any]:
    """With everything."""
    found, links = await _page(call, request, "servers/detail")
    hosts = {host.name: host for host in await call.controller.registry.hosts()}
    zone = call.setup.zone
    views = [server_view.detailed(call, s, hosts.get(s.vm.host), zone, alone=False) for s in found]
    return {"servers": views} | links


@router.get("/{server}", dependencies=[rule(Rule.SERVER)])
async def show_server(server: str, call: Asking) -> dict[str, Any]:
    """One server."""
    found = await call.server(server, Rule.SERVER)
    host = next((h for h in await call.controller.registry.hosts() if h.name == found.vm.host), None)
    return {"server": server_view.detailed(call, found, host, call.setup.zone, alone=True)}


@router.get("/{server}/tags", dependencies=[rule(Rule.TAGS)])
async def list_tags(server: str, call: Asking) -> dict[str, Any]:
    """None: libvirt knows no tags."""
    call.needs_version(26)
    await call.server(server, Rule.TAGS)
    return {"tags": []}


async def _page(call: Call, request: Request, path: str) -> tuple[list[Server], dict[str, Any]]:
    query = request.query_params
    if call.has(75):
        check_query(query, KNOWN)
    visible = await _visible(call, query)
    found = server_sorting.ordered(call, query, server_filters.passing(call, query, visible))
    listed, links = page(call, request, found, path, [one.vm.uuid for one in found])
    return listed, {} if links is None else {"servers_links": links}


async def _visible(call: Call, query: QueryParams) -> list[Server]:
    """Those of the project, or all where an administrator asks for all."""
    wanted = next((query[name] for name in _ALL_TENANTS if name in query), "0")
    everyone = boolean(wanted or "1", "all_tenants")
    if everyone:
        call.require(Rule.SERVERS_OF_ALL)
    if "deleted" in query and boolean(query["deleted"], "deleted") and call.known_user.admin:
        return []  # what is deleted is not known any more
    servers = await call.setup.servers.all()
    named = call.known_user.admin and ("project_id" in query or "tenant_id" in query)
    if everyone or named:
        return servers
    return [s for s in servers if s.project_id and s.project_id == call.known_user.project_id]


def refuse_to_change(server: Server, action: str) -> HTTPException:
    """The answer to an action that Sterna has no part in."""
    name = server_view.name_of(server)
    if server.moving:
        return HTTPException(
            409, f"Cannot '{action}' instance {server.vm.uuid} while it is in task_state migrating."
        )
    return HTTPException(501, f"Sterna does not do {action!r}: it only moves {name} while it runs.")
