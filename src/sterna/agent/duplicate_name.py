"""Refuses to start an agent while another one answers on the bus under the same host name.

That happens where settings were copied to a second host. Each agent would get half of the other one's requests.
Called by `bootstrap.agent` before an agent serves.
"""

from __future__ import annotations

from pydantic import ValidationError

from sterna.domain.errors import Conflict, SternaError, Unknown, Unreachable
from sterna.domain.hosts import HostFacts
from sterna.kit.waiting import within
from sterna.ports.hypervisor import Inventory
from sterna.rpc.client import RpcClient

ANSWER_S = 2.0
"""How long to wait for an agent that is there and does not answer; where there is none, the bus reports it at
once."""
DESCRIBED_S = 15.0
"""How long either host may take to describe itself. systemd gives an agent 90 s to start."""


async def refuse_duplicate_name(client: RpcClient, name: str, hypervisor: Inventory) -> None:
    """Raises Conflict where an agent on another host answers as `name`, or one whose host cannot be found out.

    The asking agent does not serve yet: any answer is from another one."""
    try:
        await client.call(name, "ping", {}, silence_s=ANSWER_S, total_s=DESCRIBED_S)
    except (Unreachable, Unknown):  # no agent listens, or one that has just died is still registered
        return
    try:
        answer = await client.call(name, "describe_host", {}, silence_s=ANSWER_S, total_s=DESCRIBED_S)
        theirs = HostFacts.model_validate(answer["host"])
        ours = await within(client.clock, DESCRIBED_S, hypervisor.host())
    except (SternaError, ValidationError, KeyError, TimeoutError) as error:
        why = f"another agent answers as {name} on this bus, and which host it is on cannot be found out: {error}"
        fix = f"stop the other agent, or see that libvirtd runs on both hosts, and start this one again ({name})"
        raise Conflict(why, fix=fix) from error
    if theirs.host_uuid != ours.host_uuid:
        where = f"the one at {theirs.address} with libvirt's UUID {theirs.host_uuid}"
        fix = f"give each host its own name in its agent's settings (host = ...); this one has {ours.host_uuid}"
        raise Conflict(f"another host answers as {name} on this bus already: {where}", fix=fix)
