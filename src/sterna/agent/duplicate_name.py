"""Keeps two agents of one host name from serving on one bus.

That happens where settings were copied to a second host. Both would answer each request.
`bootstrap.agent` asks before an agent serves, and listens from then on: the bus, or the other agent, may have been
away when it asked.
"""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from sterna.domain.errors import Conflict, SternaError, Unknown, Unreachable
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Data
from sterna.kit.waiting import within
from sterna.ports.hypervisor import Inventory
from sterna.rpc.client import RpcClient
from sterna.rpc.subjects import host_topic

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
    except (Unreachable, Unknown):  # the bus is away, no agent listens, or one that has just died is registered
        return
    try:
        answer = await client.call(name, "describe_host", {}, silence_s=ANSWER_S, total_s=DESCRIBED_S)
        theirs = HostFacts.model_validate(answer["host"])
        ours = await within(client.clock, DESCRIBED_S, hypervisor.host())
    except (SternaError, ValidationError, KeyError, TimeoutError) as error:
        why = f"another agent answers as {name} on this bus, but its host cannot be determined: {error}"
        fix = f"stop the other agent, or check that libvirtd runs on both hosts, and start this one again ({name})"
        raise Conflict(why, fix=fix) from error
    if theirs.host_uuid != ours.host_uuid:
        raise _two_hosts(name, theirs, ours)


class OtherAgents:
    """Listens for beacons of another host under this agent's name.

    Of two such agents the one that has joined the bus later must end. Both know both times, so only one does.
    After a restart of the bus it may be either; it asks when it is started again, and does not serve then."""

    def __init__(self, client: RpcClient, name: str, boot: str) -> None:
        self._client, self._name, self._boot = client, name, boot
        self._ours: HostFacts | None = None
        """By a beacon of our own: they come back from the bus."""
        self.found = asyncio.Event()
        """There is one that has been on the bus for longer."""
        self.conflict: Conflict | None = None
        """Which one."""

    async def start(self) -> None:
        """Listen."""
        await self._client.listen(host_topic(self._name), self._heard)

    async def _heard(self, topic: str, data: Data) -> None:
        boot, since = str(data.get("boot", "")), str(data.get("bus_since", ""))
        ours = self._ours
        if self.found.is_set() or (boot == self._boot and ours is not None):
            return
        try:
            facts = HostFacts.model_validate(data.get("host"))
        except ValidationError:  # its libvirtd is away
            return
        if boot == self._boot:
            self._ours = facts
        elif ours is not None and facts.host_uuid != ours.host_uuid and (since, boot) < (self._since(), self._boot):
            self.conflict = _two_hosts(self._name, facts, ours)
            self.found.set()

    def _since(self) -> str:
        return self._client.bus_state().since.isoformat()


def _two_hosts(name: str, theirs: HostFacts, ours: HostFacts) -> Conflict:
    where = f"the one at {theirs.address} with libvirt's UUID {theirs.host_uuid}"
    fix = f"give each host its own name in its agent's settings (host = ...); this one has {ours.host_uuid}"
    return Conflict(f"another host already answers as {name} on this bus: {where}", fix=fix)
