"""One availability zone with all hosts; no aggregates."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import moment
from sterna.api.compute.services import BINARY, state_of
from sterna.controller.records.registry import Host
from sterna.domain.compute.policies import Rule

router = APIRouter(prefix="/v2.1")


@router.get("/os-availability-zone", dependencies=[rule(Rule.ZONES)])
async def list_zones(call: Asking) -> dict[str, Any]:
    """Its name, and whether there is a host that takes VMs."""
    return {"availabilityZoneInfo": [_zone(call, await call.controller.registry.hosts()) | {"hosts": None}]}


@router.get("/os-availability-zone/detail", dependencies=[rule(Rule.ZONES_DETAIL)])
async def list_details(call: Asking) -> dict[str, Any]:
    """The same, with the hosts."""
    hosts = await call.controller.registry.hosts()
    services = {
        host.name: {
            BINARY: {
                "available": state_of(host) == "up",
                "active": not host.maintenance,
                "updated_at": moment(host.seen_at),
            }
        }
        for host in hosts
    }
    return {"availabilityZoneInfo": [_zone(call, hosts) | {"hosts": services}]}


def _zone(call: Call, hosts: list[Host]) -> dict[str, Any]:
    available = any(state_of(host) == "up" and not host.maintenance for host in hosts)
    return {"zoneName": call.setup.zone, "zoneState": {"available": available}}


@router.get("/os-aggregates", dependencies=[rule(Rule.AGGREGATES)])
async def list_aggregates() -> dict[str, Any]:
    """None: Sterna has no groups of hosts of this kind."""
    return {"aggregates": []}


@router.get("/os-aggregates/{aggregate}", dependencies=[rule(Rule.AGGREGATES)])
async def show_aggregate(aggregate: str) -> None:
    """There is none."""
    raise HTTPException(404, f"Aggregate {aggregate[:64]} could not be found.")
