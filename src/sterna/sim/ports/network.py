"""The Network port on the simulated world: a service with bindings as Neutron has them, request by request.

It refuses to activate twice (409), to bind to a host whose agent is dead (500), and does not answer while it is
down (`world.network_up`); a binding that was ACTIVE and is so no more is unbound. The world is notified of what
each request changes, so that a test can lose its answer, or kill its caller, in the middle.
"""

from __future__ import annotations

from sterna.adapters.network.bindings import CannotBind, reach, switch_at_once
from sterna.domain import plugs
from sterna.domain.bindings import MIGRATING_TO, Act, Binding, Goal, Port, Verb, elsewhere, given_back, of_another
from sterna.domain.errors import Conflict, NotFound, Refused, Unreachable
from sterna.domain.model import Nic, Refusal, Vm
from sterna.kit.aborts import raise_if_aborted
from sterna.sim.world.world import World


class SimNeutron:
    """The simulated service (adapters.network.bindings.BindingService)."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def port(self, port_id: str) -> Port:
        """As it is now. Raises NotFound, Unreachable."""
        await self._called()
        hosts = self._hosts(port_id)
        bindings = tuple(self._binding(port_id, host, on) for host, on in hosts.items())
        return Port(id=port_id, vm_uuid=self._world.port_owners.get(port_id, ""), bindings=bindings)

    def knows(self, port_id: str) -> bool:
        """Is there such a port?"""
        return port_id in self._world.bindings

    async def act(self, act: Act, port: Port, destination: str) -> None:
        """One request. Raises as Neutron answers."""
        await self._called()
        hosts, world = self._hosts(act.port_id), self._world
        if act.verb is Verb.CREATE:
            if act.host in hosts:
                raise Conflict(f"port {act.port_id} has a binding on {act.host} already")
            self._must_be_alive(act)
            world.bind(act.port_id, act.host, not any(hosts.values()))
            world.mark_binding(act.port_id, act.host, act.host)
        elif act.verb is Verb.DELETE:
            world.bind(act.port_id, act.host, None)
        elif act.verb is Verb.MOVE:
            world.move_binding(act.port_id, act.host)
        elif act.host not in hosts:
            raise NotFound(f"port {act.port_id} has no binding on {act.host}")
        elif act.verb is Verb.ACTIVATE:
            if hosts[act.host]:
                raise Conflict(f"the binding of port {act.port_id} on {act.host} is already active")
            world.activate_binding(act.port_id, act.host)
        elif act.verb in (Verb.MARK, Verb.UNMARK):
            world.mark_binding(act.port_id, act.host, destination if act.verb is Verb.MARK else "")

    def _hosts(self, port_id: str) -> dict[str, bool]:
        try:
            return self._world.bindings[port_id]
        except KeyError:
            raise NotFound(f"the network service knows no port {port_id}") from None

    def _binding(self, port_id: str, host: str, active: bool) -> Binding:
        to = self._world.migrating_to.get((port_id, host))
        unbound = (port_id, host) in self._world.unbound
        profile = {MIGRATING_TO: to} if to else {}
        return Binding(host=host, active=active, vif_type="unbound" if unbound else "ovs", profile=profile)

    def _must_be_alive(self, act: Act) -> None:
        if not self._world.hosts[act.host].powered:
            raise CannotBind(f"port {act.port_id} cannot be bound on {act.host}: its network agent is dead")

    async def _called(self) -> None:
        raise_if_aborted()
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        if not self._world.network_up:
            raise Unreachable("the network service does not answer", fix="check that its API runs")


class SimNetwork:
    """One simulated network service (ports.network.Network)."""

    def __init__(self, world: World) -> None:
        self._service = SimNeutron(world)

    service = "neutron"

    async def check(self, vm: Vm, source: str, destination: str) -> list[Refusal]:
        """Ports that are elsewhere, a destination without power. Raises NotFound, Unreachable."""
        found = []
        for port_id in _ports(vm):
            port = await self._service.port(port_id)
            if not_its_own := of_another(port_id, port.vm_uuid, vm.uuid):
                found.append(not_its_own)
            elif port.active is not None and port.active.host not in (source, destination):
                found.append(elsewhere(port_id, port.active.host, source))
        return found

    async def prepare(self, vm: Vm, source: str, destination: str) -> None:
        """Before P3. Raises Conflict, Temporary."""
        await self._reach(vm, Goal.PREPARED, source, destination)

    async def nics_for(self, vm: Vm, source: str, destination: str) -> tuple[Nic, ...]:
        """P5: the VM's NICs. Raises Refused where one cannot be plugged, has no binding here, or has a port that is
        not this VM's, or not on the source."""
        refusals = [r for nic in vm.nics for r in plugs.refusals(nic) or plugs.unknowns(nic)]
        for port_id in _ports(vm) if not refusals else ():
            refusals += self._against(await self._service.port(port_id), vm.uuid, source, destination)
        if refusals:
            raise Refused(refusals)
        return tuple(plugs.as_bound(nic) for nic in vm.nics)

    def _against(self, port: Port, vm_uuid: str, source: str, destination: str) -> list[Refusal]:
        if not_its_own := of_another(port.id, port.vm_uuid, vm_uuid):
            return [not_its_own]
        if port.active is not None and port.active.host != source:
            return [elsewhere(port.id, port.active.host, source)]
        binding = port.on(destination)
        if binding is None or not binding.bound:
            return [Refusal(code="nic-not-bound", message=f"port {port.id} is not bound on {destination}")]
        return []

    async def switch(self, vm: Vm, source: str, destination: str) -> None:
        """At the switch-over."""
        for port_id in _ports(vm):
            await switch_at_once(self._service, port_id, vm.uuid, source, destination)

    async def settle(self, vm: Vm, source: str, destination: str) -> None:
        """F7. A port that was deleted since has nothing to settle."""
        await self._reach(vm, Goal.SETTLED, source, destination, forgiving=True)

    async def give_back(self, vm: Vm, source: str, destination: str) -> bool:
        """R6, first."""
        returned = await self._reach(vm, Goal.RETURNED, source, destination, forgiving=True)
        return any(given_back(port, source) for port in returned)

    async def withdraw(self, vm: Vm, source: str, destination: str) -> None:
        """R6."""
        await self._reach(vm, Goal.RESTORED, source, destination, forgiving=True)

    async def wired(self, vm: Vm, host: str) -> bool:
        """The simulated agents are quick; but none wires a port that is on its way to another host."""
        found = [await self._service.port(port_id) for port_id in _ports(vm) if self._service.knows(port_id)]
        active = [port.active for port in found]
        return all(b is not None and b.host == host == b.profile.get(MIGRATING_TO, host) for b in active)

    async def _reach(
        self, vm: Vm, goal: Goal, source: str, destination: str, *, forgiving: bool = False
    ) -> list[Port]:
        found = []
        for port_id in (p for p in _ports(vm) if not forgiving or self._service.knows(p)):
            try:
                found.append(await reach(self._service, port_id, vm.uuid, goal, source, destination))
            except NotFound:
                if not forgiving:
                    raise
        return found


def _ports(vm: Vm) -> list[str]:
    return [nic.port_id for nic in vm.nics if nic.port_id]
