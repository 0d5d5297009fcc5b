"""`/os-services`: one `nova-compute` for each agent. Disabled is maintenance; forced down is declared dead."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, made_id, made_number, rule
from sterna.api.compute.reading import boolean, check_query, json_body, moment, only, text, wrong
from sterna.controller.records.registry import Host
from sterna.domain.compute.policies import Rule
from sterna.domain.errors import Refused
from sterna.domain.plain_text import printable

router = APIRouter(prefix="/v2.1/os-services")
BINARY = "nova-compute"
"""What clients look for."""
_UPDATE = [rule(Rule.SERVICE_UPDATE)]
ENABLED, DISABLED = "enabled", "disabled"


def service_id(call: Call, host: str) -> str | int:
    """Of a host's service, as this version has it."""
    return made_id("service", host) if call.has(53) else made_number("service", host)


def status_of(host: Host) -> str:
    """May VMs go there?"""
    return DISABLED if host.maintenance else ENABLED


def state_of(host: Host) -> str:
    """Does its agent answer?"""
    return "up" if host.up and not host.dead else "down"


def view(call: Call, host: Host) -> dict[str, Any]:
    """One service."""
    seen: dict[str, Any] = {
        "id": service_id(call, host.name),
        "binary": BINARY,
        "host": host.name,
        "zone": call.setup.zone,
        "status": status_of(host),
        "state": state_of(host),
        "updated_at": moment(host.seen_at),
        "disabled_reason": host.maintenance_reason or None,
    }
    return seen | ({"forced_down": host.dead} if call.has(11) else {})


@router.get("", dependencies=[rule(Rule.SERVICES)])
async def list_services(call: Asking, request: Request) -> dict[str, Any]:
    """By host."""
    query = request.query_params
    if call.has(75):
        check_query(query, ("host", "binary"))
    binary, host = query.get("binary") or BINARY, query.get("host")
    hosts = await call.controller.registry.hosts() if binary == BINARY else []
    return {"services": [view(call, one) for one in hosts if not host or host == one.name]}


@router.put("/{service}", dependencies=_UPDATE)
async def update(service: str, request: Request, call: Asking) -> dict[str, Any]:
    """By ID from 2.53 on; before, the path says what is done and the body to which host."""
    body = await json_body(request)
    if not call.has(53):
        return {"service": await _update_before_ids(call, service, body)}
    only(body, "service", (), ("status", "disabled_reason", "forced_down"))
    host = await _host(call, service)
    status, reason = body.get("status"), body.get("disabled_reason")
    if status not in (None, ENABLED, DISABLED):
        raise wrong("status", f"it is neither {ENABLED} nor {DISABLED}")
    if status is None and "forced_down" not in body:
        raise HTTPException(400, "There is nothing to change: name status or forced_down.")
    if reason is not None and status != DISABLED:
        raise HTTPException(400, f"disabled_reason makes no sense with the status {status or host_word(host)}.")
    if "forced_down" in body:
        await _force(call, host, down=boolean(body["forced_down"], "forced_down"))
    if status is not None:
        await _maintain(call, host.name, on=status == DISABLED, reason=_reason(reason))
    return {"service": view(call, await call.controller.registry.host(host.name))}


@router.delete("/{service}", dependencies=[rule(Rule.SERVICE_DELETE)])
async def delete(service: str, call: Asking) -> None:
    """Never: a host is there as long as its agent is."""
    host = await _host(call, service)
    raise HTTPException(409, f"{host.name} stays known to Sterna: stop its agent, and leave it in maintenance.")


def host_word(host: Host) -> str:
    """How it is now."""
    return status_of(host)


async def _update_before_ids(call: Call, what: str, body: dict[str, Any]) -> dict[str, Any]:
    more = {"disable-log-reason": ("disabled_reason",), "force-down": ("forced_down",)}
    known = ("disabled_reason", "forced_down") if call.has(11) else ("disabled_reason",)
    if what not in ("enable", "disable", *more) or (what == "force-down" and not call.has(11)):
        raise HTTPException(404, f"Unknown action {what[:64]}")
    only(body, what, ("host", "binary", *more.get(what, ())), known)
    name = text(body["host"], "host")
    host = next((h for h in await call.controller.registry.hosts() if h.name == name), None)
    if host is None or body["binary"] != BINARY:
        raise HTTPException(404, f"There is no service {str(body['binary'])[:64]} on a host {name}.")
    answer = {"host": name, "binary": BINARY}
    if what == "force-down":
        down = boolean(body["forced_down"], "forced_down")
        await _force(call, host, down=down)
        return answer | {"forced_down": down}
    reason = _reason(body.get("disabled_reason"))
    await _maintain(call, name, on=what != "enable", reason="" if what == "enable" else reason)
    answer |= {"status": ENABLED if what == "enable" else DISABLED}
    return answer | ({"disabled_reason": reason} if what in more else {})


def _reason(said: Any) -> str:
    return "" if said is None else printable(text(said, "disabled_reason"))


async def _maintain(call: Call, name: str, *, on: bool, reason: str) -> None:
    await call.controller.registry.set_maintenance(name, on, reason)


async def _force(call: Call, host: Host, *, down: bool) -> None:
    """Forced down means fenced: it is believed only of a host that is silent. Raises HTTPException (409)."""
    if not down:
        if host.dead_at:
            await call.controller.deaths.take_back(host.name)
        return
    try:
        await call.controller.deaths.declare(host.name, fenced=True)
    except Refused as error:
        raise HTTPException(409, f"{error.message}. Fix: {error.fix}.") from error


async def _host(call: Call, service: str) -> Host:
    """The host whose service has this ID."""
    for host in await call.controller.registry.hosts():
        if str(service_id(call, host.name)) == service.lower():
            return host
    raise HTTPException(404, f"Service {service[:64]} not found.")
