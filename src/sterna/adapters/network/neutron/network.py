"""`ports.network.Network` on OpenStack Neutron: what a migration wants of a VM's ports, port by port."""

from __future__ import annotations

from sterna.adapters.network.bindings import reach, switch_at_once
from sterna.adapters.network.neutron.plug import nic_for
from sterna.adapters.network.neutron.ports import EXTENSION, NeutronPorts, owner_of
from sterna.adapters.openstack.session import Cloud
from sterna.domain.bindings import Binding, Goal, Port, elsewhere, given_back, of_another
from sterna.domain.errors import NotFound, Refused
from sterna.domain.model import Nic, Refusal, Vm
from sterna.kit.tasks import all_of


class NeutronNetwork:
    """One cloud's Neutron. Hosts are named as Neutron's agents name them.

    Where Neutron has no multiple bindings, all is as it was until F7 sets `binding:host_id`.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._ports = NeutronPorts(cloud)

    service = "neutron"

    async def check(self, vm: Vm, source: str, destination: str) -> list[Refusal]:
        """Every port, and the destination's network agents. Raises Temporary, Permanent where Neutron fails."""
        async with self._cloud.asking_for_a_check("Neutron"):
            return await self._check(vm, source, destination)

    async def _check(self, vm: Vm, source: str, destination: str) -> list[Refusal]:
        found = _without_port(vm)
        for nic in vm.nics:
            try:
                raw = await self._ports.raw(nic.port_id) if nic.port_id else {}
            except NotFound as error:
                message, fix = f"NIC {nic.mac}: {error.message}", "detach the NIC, or give it a port"
                found.append(Refusal(code="nic-port-unknown", message=message, fix=fix))
                continue
            if not nic.port_id:
                continue
            if not_its_own := of_another(nic.port_id, owner_of(raw), vm.uuid):
                found.append(not_its_own)
                continue
            bound = raw.get("binding:host_id") or source
            if bound not in (source, destination):
                found.append(elsewhere(nic.port_id, bound, source))
        if vm.nics and await self._ports.live_agents(destination) == []:
            message = f"Neutron knows no network agent that is alive on {destination}"
            fix = "start it, or set `host` in that host's `[openstack]` to the name it has in Neutron"
            found.append(Refusal(code="network-agent-dead", message=message, fix=fix))
        return found

    async def prepare(self, vm: Vm, source: str, destination: str) -> None:
        """Before P3. Raises Conflict, NotFound, Temporary, Unknown; Refused for NICs without a port."""
        nameless = _without_port(vm)
        if nameless:
            raise Refused(nameless)
        await self._reach(vm, Goal.PREPARED, source, destination)

    async def nics_for(self, vm: Vm, source: str, destination: str) -> tuple[Nic, ...]:
        """P5: by what Neutron's binding for `destination` says. Raises Refused with every reason."""
        with self._cloud.together():
            found = [await self._nic(nic, vm.uuid, source, destination) for nic in vm.nics]
        refusals = [f for f in found if isinstance(f, Refusal)]
        if refusals:
            raise Refused(refusals)
        return tuple(f for f in found if isinstance(f, Nic))

    async def switch(self, vm: Vm, source: str, destination: str) -> None:
        """At the switch-over: all ports at once. Without multiple bindings F7 is the only time."""
        with self._cloud.together():
            if await self._ports.extended():
                await all_of(switch_at_once(self._ports, p, vm.uuid, source, destination) for p in _ids(vm))

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
        """Every port's status is ACTIVE, as the agent of the host it is bound to reported; a port that was deleted
        since has nothing to wire. Raises Temporary."""
        with self._cloud.together():
            for port_id in _ids(vm):
                try:
                    raw = await self._ports.raw(port_id)
                except NotFound:
                    continue
                if raw.get("binding:host_id") != host or raw.get("status") != "ACTIVE":
                    return False
        return True

    async def _nic(self, nic: Nic, vm_uuid: str, source: str, host: str) -> Nic | Refusal:
        """Whose it is and where, before anything is made of it: the source names it, and may name any port."""
        try:
            raw = await self._ports.raw(nic.port_id or "")
        except NotFound as error:
            fix = "detach the NIC, or give it a port"
            return Refusal(code="nic-port-unknown", message=f"NIC {nic.mac}: {error.message}", fix=fix)
        if not_its_own := of_another(raw["id"], owner_of(raw), vm_uuid):
            return not_its_own
        if (bound := raw.get("binding:host_id") or source) != source:
            return elsewhere(raw["id"], bound, source)
        if await self._ports.extended():
            binding = next((b for b in await self._ports.bindings(raw["id"]) if b.host == host), None)
        else:  # how the source plugs it is the best guess there is
            kind, details = raw.get("binding:vif_type") or "", raw.get("binding:vif_details") or {}
            binding = Binding(host=host, active=True, vif_type=kind, vif_details=details)
        addresses = tuple(str(fixed["ip_address"]) for fixed in raw.get("fixed_ips") or ())
        return nic_for(nic, binding, host, mtu=await self._ports.mtu(raw["network_id"]), addresses=addresses)

    async def _reach(
        self, vm: Vm, goal: Goal, source: str, destination: str, *, forgiving: bool = False
    ) -> list[Port]:
        """The ports as they are then, where Neutron has multiple bindings."""
        found = list[Port]()

        async def one(port_id: str) -> None:
            try:
                if await self._ports.extended():
                    found.append(await reach(self._ports, port_id, vm.uuid, goal, source, destination))
                else:
                    await self._without_bindings(port_id, vm.uuid, goal, source, destination)
            except NotFound:
                if not forgiving:
                    raise

        with self._cloud.together():
            await self._ports.extended()  # once, not for each port
            await all_of(one(port_id) for port_id in _ids(vm))
        return found

    async def _without_bindings(
        self, port_id: str, vm_uuid: str, goal: Goal, source: str, destination: str
    ) -> None:
        """No `binding-extended`: one host per port, changed at F7 and back in a rollback that comes after it."""
        wrong, right = {Goal.SETTLED: (source, destination), Goal.RESTORED: (destination, source)}.get(
            goal, ("", "")
        )
        if not wrong:
            return
        raw = await self._ports.raw(port_id)
        if raw.get("binding:host_id") == wrong and of_another(port_id, owner_of(raw), vm_uuid) is None:
            await self._ports.bind_to(port_id, right)


def _without_port(vm: Vm) -> list[Refusal]:
    nameless = [nic.mac for nic in vm.nics if not nic.port_id]
    if not nameless:
        return []
    message = f"no port of Neutron is known for NIC {', '.join(nameless)}"
    fix = 'set external_ids:iface-id on its Open vSwitch interface, or `provider = "native"` in `[network]`'
    return [Refusal(code="nic-port-unknown", message=message, fix=fix)]


def _ids(vm: Vm) -> list[str]:
    return [nic.port_id for nic in vm.nics if nic.port_id]


__all__ = ["EXTENSION", "NeutronNetwork"]
