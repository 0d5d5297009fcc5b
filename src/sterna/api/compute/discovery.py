"""What is served, for clients that have no token yet."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sterna.api.compute.call import Asking, Call, rule
from sterna.domain.compute.microversions import MAX, MIN
from sterna.domain.compute.policies import Rule

router = APIRouter()
_RULE = [rule(Rule.VERSIONS)]
_MEDIA = [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(MAX),
        "min_version": str(MIN),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{call.base}/v2.1/"}],
    }


@router.get("/", dependencies=_RULE)
async def versions(call: Asking) -> dict[str, Any]:
    """All there are: one."""
    return {"versions": [_version(call)]}


@router.get("/v2.1", dependencies=_RULE)
@router.get("/v2.1/", dependencies=_RULE)
async def version(call: Asking) -> dict[str, Any]:
    """The same, with its media type."""
    return {"version": _version(call) | {"media-types": _MEDIA}}
