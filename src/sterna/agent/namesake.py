"""Another agent of the same name on the same bus, from settings that were copied to a second host: each would get
half of what is asked of the other. Called by `bootstrap.run_agent` before an agent serves."""

from __future__ import annotations

from pydantic import ValidationError

from sterna.domain.errors import Conflict, SternaError
from sterna.domain.model import HostFacts
from sterna.ports.hypervisor import Inventory
from sterna.rpc.client import RpcClient

ANSWER_S = 2.0
"""How long is waited for one that is there and says nothing; where nobody is, the bus says so at once."""


async def refuse_namesake(client: RpcClient, name: str, hypervisor: Inventory) -> None:
    """Raises Conflict where another host answers as `name`. One that cannot tell which host it is, is let be."""
    try:
        answer = await client.call(name, "describe_host", {}, silence_s=ANSWER_S)
        theirs, ours = HostFacts.model_validate(answer["host"]), await hypervisor.host()
    except (SternaError, ValidationError, KeyError):
        return
    if theirs.host_uuid != ours.host_uuid:
        where = f"the one at {theirs.address} with libvirt's UUID {theirs.host_uuid}"
        fix = f"give each host its own name in its agent's settings (host = ...); this one has {ours.host_uuid}"
        raise Conflict(f"another host answers as {name} on this bus already: {where}", fix=fix)
