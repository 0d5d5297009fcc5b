"""What other services report (Neutron: a port was wired), passed on to the agents as hints."""

from __future__ import annotations

from sterna.controller.calls import AgentCalls
from sterna.domain.model import Value


class ExternalEvent(Value):
    """One report."""

    name: str
    """`network-vif-plugged`, `network-vif-unplugged`, ..."""
    vm: str
    port: str
    status: str


async def pass_on(calls: AgentCalls, event: ExternalEvent) -> None:
    """To an agent that prepares for this VM, if there is one. May be lost: nothing waits for it alone."""
    await calls.announce(f"external.{event.vm}", event.model_dump(mode="json"))
