"""`/flavors`: those of the servers there are. Nobody can make a server with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import boolean, check_query, number, page, wrong
from sterna.domain.compute.flavors import distinct, flavor_of
from sterna.domain.compute.policies import Rule
from sterna.domain.nova import Flavor

router = APIRouter(prefix="/v2.1/flavors")
_RULE = [rule(Rule.FLAVORS)]
_KNOWN = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
_SORTED_BY: dict[str, Callable[[Flavor], Any]] = {
    "flavorid": lambda flavor: flavor.id,
    "id": lambda flavor: flavor.id,
    "name": lambda flavor: flavor.name,
    "memory_mb": lambda flavor: flavor.memory_mib,
    "root_gb": lambda flavor: flavor.disk_gib,
    "ephemeral_gb": lambda flavor: flavor.ephemeral_gib,
    "swap": lambda flavor: flavor.swap_mib,
    "vcpus": lambda flavor: flavor.vcpus,
}
_ALIKE = ("created_at", "description", "disabled", "is_public", "rxtx_factor", "updated_at", "vcpu_weight")
"""All flavors have the same of these."""


@router.get("", dependencies=_RULE)
async def list_flavors(call: Asking, request: Request) -> dict[str, Any]:
    """IDs and names."""
    return await _page(call, request, detail=False)


@router.get("/detail", dependencies=_RULE)
async def list_details(call: Asking, request: Request) -> dict[str, Any]:
    """With their sizes."""
    return await _page(call, request, detail=True)


@router.get("/{flavor}", dependencies=_RULE)
async def show_flavor(flavor: str, call: Asking) -> dict[str, Any]:
    """By ID."""
    return {"flavor": _detailed(call, await _called(call, flavor))}


@router.get("/{flavor}/os-extra_specs", dependencies=[rule(Rule.EXTRA_SPECS)])
async def show_extra_specs(flavor: str, call: Asking) -> dict[str, Any]:
    """As Nova wrote them into the definitions."""
    return {"extra_specs": (await _called(call, flavor)).extra_specs}


async def _all(call: Call) -> list[Flavor]:
    """Of servers that the user may see."""
    user, servers = call.known_user, await call.setup.servers.all()
    seen = [s for s in servers if user.admin or (s.project_id and s.project_id == user.project_id)]
    return distinct(flavor_of(s.vm.nova, s.vm.memory_bytes, s.vm.vcpus) for s in seen)


async def _called(call: Call, id: str) -> Flavor:
    for flavor in await _all(call):
        if flavor.id == id:
            return flavor
    raise HTTPException(404, f"Flavor {id[:64]} could not be found.")


async def _page(call: Call, request: Request, *, detail: bool) -> dict[str, Any]:
    found = _wanted(call, request.query_params, await _all(call))
    path = "flavors/detail" if detail else "flavors"
    listed, links = page(call, request, found, path, [flavor.id for flavor in found])
    views = [_detailed(call, flavor) if detail else _brief(call, flavor) for flavor in listed]
    return {"flavors": views} | ({} if links is None else {"flavors_links": links})


def _wanted(call: Call, query: QueryParams, flavors: list[Flavor]) -> list[Flavor]:
    """Those that the query asks for, in its order, else by name. All are public."""
    if call.has(75):
        check_query(query, _KNOWN)
    public = query.get("is_public", "none")
    if call.known_user.admin and public.lower() != "none" and not boolean(public, "is_public"):
        return []
    ram, disk = number(query, "minRam", 0), number(query, "minDisk", 0)
    found = [flavor for flavor in flavors if flavor.memory_mib >= ram and flavor.disk_gib >= disk]
    key, direction = query.get("sort_key"), query.get("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        raise wrong("sort_dir", "it is neither asc nor desc")
    if key is not None and key not in _SORTED_BY and key not in _ALIKE:
        raise wrong("sort_key", "flavors cannot be sorted by this")
    by = _SORTED_BY.get(key or "name", lambda flavor: flavor.name)
    return sorted(found, key=by, reverse=direction == "desc")


def _brief(call: Call, flavor: Flavor) -> dict[str, Any]:
    view: dict[str, Any] = {"id": flavor.id, "name": flavor.name, "links": call.links(f"flavors/{flavor.id}")}
    return view | ({"description": None} if call.has(55) else {})


def _detailed(call: Call, flavor: Flavor) -> dict[str, Any]:
    view = _brief(call, flavor) | {
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "swap": flavor.swap_mib if call.has(75) else flavor.swap_mib or "",
        "vcpus": flavor.vcpus,
        "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": True,
    }
    return view | ({"extra_specs": flavor.extra_specs} if call.has(61) and call.may(Rule.EXTRA_SPECS) else {})
