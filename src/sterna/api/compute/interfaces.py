"""`/servers/ID/os-interface`: the server's ports, as Neutron has them. Nothing is attached or detached here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, rule
from sterna.domain.compute.policies import Rule
from sterna.ports.cloud import ServerPort

router = APIRouter(prefix="/v2.1/servers/{server}/os-interface")


@router.get("", dependencies=[rule(Rule.INTERFACES)])
async def list_interfaces(server: str, call: Asking) -> dict[str, Any]:
    """All of them."""
    ports = await _ports(call, server, Rule.INTERFACES)
    return {"interfaceAttachments": [_view(call, port) for port in ports]}


@router.get("/{port}", dependencies=[rule(Rule.INTERFACE)])
async def show_interface(server: str, port: str, call: Asking) -> dict[str, Any]:
    """One, by its port's ID."""
    for one in await _ports(call, server, Rule.INTERFACE):
        if one.id == port.lower():
            return {"interfaceAttachment": _view(call, one)}
    raise HTTPException(404, f"Instance {server} does not have a port with id {port[:64]}.")


async def _ports(call: Call, server: str, rule: Rule) -> tuple[ServerPort, ...]:
    """Raises HTTPException (503) where nobody has said which they are: that is not the same as none."""
    found = await call.server(server, rule)
    if not found.ports_known:
        why = "Neutron has not answered, or `neutron` in `[compute]` is off"
        raise HTTPException(503, f"The ports of server {server} are not known: {why}.")
    return found.ports


def _view(call: Call, port: ServerPort) -> dict[str, Any]:
    view: dict[str, Any] = {
        "port_id": port.id,
        "net_id": port.network_id,
        "mac_addr": port.mac,
        "port_state": port.status,
        "fixed_ips": [
            {"subnet_id": subnet, "ip_address": address}
            for subnet, address in zip(port.subnets, port.addresses, strict=False)
        ],
    }
    return view | ({"tag": None} if call.has(70) else {})
