"""`/servers`: list and show, and their tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute import server_view
from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import NamePattern, at, boolean, check_query, instant, page
from sterna.controller.records.servers import Server
from sterna.domain.compute.flavors import flavor_of
from sterna.domain.compute.policies import Rule
from sterna.domain.compute.statuses import server_state

router = APIRouter(prefix="/v2.1/servers")
_LIST = [rule(Rule.SERVERS)]
_PAGING = ("limit", "marker", "sort_key", "sort_dir")
Filter = Callable[[Server, str], bool]


def _word(server: Server) -> str:
    return server_state(server.vm.state, migrating=server.moving).status


def _flavor(server: Server) -> str:
    return flavor_of(server.vm.nova, server.vm.memory_bytes, server.vm.vcpus).id


FOR_ALL: dict[str, Filter] = {
    "status": lambda s, v: _word(s) == v.upper(),
    "name": lambda s, v: NamePattern(v).matches(server_view.name_of(s)),
    "flavor": lambda s, v: _flavor(s) == v,
    "image": lambda s, v: s.vm.nova is not None and s.vm.nova.image == v,
    "ip": lambda s, v: any(v in a for p in s.ports for a in p.addresses),
    "ip6": lambda s, v: any(v in a for p in s.ports for a in p.addresses),
    "uuid": lambda s, v: s.vm.uuid == v.lower(),
    "vm_state": lambda s, v: server_state(s.vm.state, migrating=False).vm_state == v,
    "task_state": lambda s, v: s.moving == (v == "migrating"),
    "power_state": lambda s, v: str(server_state(s.vm.state, migrating=False).power_state) == v,
}
"""By parameter."""
FOR_ADMINS: dict[str, Filter] = {
    "host": lambda s, v: v in (s.vm.host, *s.vm.also),
    "hostname": lambda s, v: server_view.name_of(s) == v,
    "node": lambda s, v: v in (s.vm.host, *s.vm.also),
    "project_id": lambda s, v: s.project_id == v,
    "tenant_id": lambda s, v: s.project_id == v,
    "user_id": lambda s, v: s.vm.nova is not None and s.vm.nova.user_id == v,
}
"""Others' are ignored, as Nova does."""
_ALL_TENANTS = ("all_tenants", "all_projects")
_NEVER = frozenset({"tags", "tags-any", "reservation_id", "key_name", "services", "metadata", "system_metadata"})
"""No server here has anything of the kind: none passes."""
_WITHOUT_EFFECT = frozenset({
    "access_ip_v4", "access_ip_v6", "availability_zone", "block_device_mapping", "config_drive", "created_at",
    "description", "display_name", "info_cache", "kernel_id", "launch_index", "launched_at", "locked", "locked_by",
    "not-tags", "not-tags-any", "pci_devices", "progress", "ramdisk_id", "root_device_name", "security_groups",
    "soft_deleted", "terminated_at",
})  # fmt: skip
"""Nova filters by these."""
KNOWN = {*FOR_ALL, *FOR_ADMINS, *_ALL_TENANTS, *_NEVER, *_WITHOUT_EFFECT, *_PAGING, "deleted", "changes-since",
         "changes-before"}  # fmt: skip


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
    seen = await _visible(call, query)
    found = sorted(_filtered(call, query, seen), key=lambda s: (_reversed(server_view.created_at(s)), s.vm.uuid))
    listed, links = page(call, request, found, path, [one.vm.uuid for one in found])
    return listed, {} if links is None else {"servers_links": links}


def _reversed(created: str) -> float:
    """Newest first."""
    return -at(created).timestamp()


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


def _filtered(call: Call, query: QueryParams, servers: list[Server]) -> list[Server]:
    filters = FOR_ALL | (FOR_ADMINS if call.known_user.admin else {})
    if any(name in query for name in _NEVER):
        return []
    since, before = instant(query, "changes-since"), instant(query, "changes-before")
    if before is not None:
        call.needs_version(66)
    for name, passes in filters.items():
        for value in query.getlist(name)[:1] if name != "status" else ():
            servers = [server for server in servers if passes(server, value)]
    words = query.getlist("status")
    if words:
        servers = [server for server in servers if any(FOR_ALL["status"](server, word) for word in words)]
    return [
        server
        for server in servers
        if (since is None or at(server_view.updated_at(server)) >= since)
        and (before is None or at(server_view.updated_at(server)) <= before)
    ]


def refuse_to_change(server: Server, action: str) -> HTTPException:
    """The answer to an action that Sterna has no part in."""
    name = server_view.name_of(server)
    if server.moving:
        return HTTPException(
            409, f"Cannot '{action}' instance {server.vm.uuid} while it is in task_state migrating."
        )
    return HTTPException(501, f"Sterna does not do {action!r}: it only moves {name} while it runs.")
