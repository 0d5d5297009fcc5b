"""What other services report (Neutron: a port was wired), passed on to the agents as hints."""

from __future__ import annotations

from collections.abc import Sequence

from sterna.controller.calls import AgentCalls
from sterna.domain.compute.external_events import ExternalEvent, code_of
from sterna.ports.fleet import Fleet

MOST_LOOKED_UP = 20
"""VMs that are looked up one by one; for more, all are read at once."""


async def take_events(fleet: Fleet, calls: AgentCalls, events: Sequence[ExternalEvent]) -> list[int]:
    """The code of each. An agent that prepares for this VM, if there is one, gets the hint. It may be lost: nothing
    waits for it alone. Raises Unreachable where the database is away; the agents have their hints by then."""
    for event in events:
        if event.passed_on:
            await calls.announce(f"external.{event.vm}", event.model_dump(mode="json"))
    known = await _known(fleet, {event.vm for event in events})
    return [code_of(event, known=event.vm in known) for event in events]


async def _known(fleet: Fleet, uuids: set[str]) -> set[str]:
    """Those of which there is a VM."""
    if len(uuids) > MOST_LOOKED_UP:
        return {vm.uuid for vm in await fleet.vms()}
    return {vm.uuid for uuid in sorted(uuids) for vm in await fleet.vms_called(uuid)}
