"""Carries out what `domain/bindings.py` decides: look, do one thing, look again."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.bindings import Act, Goal, Port, Verb, next_act, of_another
from sterna.domain.errors import Conflict, NotFound, Temporary, Unknown

_ROUNDS = 12
"""More than any goal needs, with a stranger interfering once or twice."""


class CannotBind(Temporary):
    """The service finds no way to plug the port on that host: its network agent there is dead or knows it not."""


class BindingService(Protocol):
    """A network service with multiple bindings: one look, and one request per act."""

    async def port(self, port_id: str) -> Port:
        """The port as the service has it now. Raises NotFound, Temporary, Unknown."""

    async def act(self, act: Act, port: Port, destination: str) -> None:
        """One request. `port`: as last seen; `destination`: what MARK writes.

        Raises CannotBind; Conflict or NotFound where another change came first (look again); Temporary; Unknown."""


async def reach(
    service: BindingService, port_id: str, vm_uuid: str, goal: Goal, source: str, destination: str
) -> Port:
    """Bring one port of that VM to `goal`; the port as it is then.

    Raises Conflict for a port bound to a third host; NotFound, also for one that is another VM's; Temporary,
    Unknown."""
    unbindable: set[str] = set()
    for _ in range(_ROUNDS):
        port = await service.port(port_id)
        if not_its_own := of_another(port_id, port.vm_uuid, vm_uuid):
            raise NotFound(not_its_own.message, fix=not_its_own.fix)
        act = next_act(port, goal, source, destination, unbindable=unbindable)
        if act is None:
            return port
        try:
            await service.act(act, port, destination)
        except CannotBind:
            if goal not in (Goal.RETURNED, Goal.RESTORED) or act.verb not in (Verb.CREATE, Verb.UNMARK):
                raise
            unbindable.add(act.host)  # a dead source's port is its own anyway: its agent binds it when it is back
        except (Conflict, NotFound):
            continue  # done by somebody else meanwhile, or by us before an answer was lost: look
    raise Temporary(f"port {port_id} does not come to rest: something else changes its bindings")


async def switch_at_once(
    service: BindingService, port_id: str, vm_uuid: str, source: str, destination: str
) -> None:
    """SWITCHED, with the request first and the look only where it was refused: each millisecond is blackout. Whose
    the port is was looked at before P3, and at P5."""
    try:
        await service.act(Act(verb=Verb.ACTIVATE, host=destination, port_id=port_id), Port(id=port_id), destination)
    except (Conflict, NotFound, Unknown):
        await reach(service, port_id, vm_uuid, Goal.SWITCHED, source, destination)
