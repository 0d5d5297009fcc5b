"""The `native` network: no service, the VM's own description is the truth (SPEC P5, F7, R6)."""

from __future__ import annotations

from sterna.domain.errors import Refused
from sterna.domain.model import Nic, Refusal, Vm


class NativeNetwork:
    """`ports.network.Network` without a network service: there are no bindings to make, move or withdraw."""

    service = ""

    async def nics_for(self, vm: Vm, host: str) -> tuple[Nic, ...]:
        """P5, F6: the VM's NICs as it describes them; the same bridge and VLAN on every host.

        Raises Refused, with every reason, for NICs that no host could plug.
        """
        refusals = [r for nic in vm.nics for r in _against(nic, host)]
        if refusals:
            raise Refused(refusals)
        return vm.nics

    async def prepare(self, vm: Vm, source: str, destination: str) -> None:
        """Nothing to do, no service knows where a port is."""

    async def switch(self, vm: Vm, source: str, destination: str) -> None:
        """Nothing to do."""

    async def settle(self, vm: Vm, source: str, destination: str) -> None:
        """F7: nothing to do."""

    async def give_back(self, vm: Vm, source: str, destination: str) -> None:
        """R6: nothing to do."""

    async def withdraw(self, vm: Vm, source: str, destination: str) -> None:
        """R6: nothing to do."""

    async def wired(self, vm: Vm, host: str) -> bool:
        """Nobody to ask: what the switch says is all there is to know."""
        return True


def _against(nic: Nic, host: str) -> list[Refusal]:
    found = []
    if nic.plug != "ovs":
        found.append(
            Refusal(
                code="nic-unsupported",
                message=f"NIC {nic.mac} cannot be plugged on {host}: {nic.plug}",
                fix="attach it to an Open vSwitch bridge with an openvswitch virtualport",
            )
        )
    elif not nic.bridge:
        found.append(
            Refusal(
                code="nic-bridge-unknown",
                message=f"nothing says which bridge NIC {nic.mac} belongs to on {host}",
                fix="add its tap to an Open vSwitch bridge on the source",
            )
        )
    if nic.plug == "ovs" and not nic.port_id:
        found.append(
            Refusal(
                code="nic-port-unknown",
                message=f"NIC {nic.mac} has no port id",
                fix="set external_ids:iface-id on its Open vSwitch interface",
            )
        )
    return found
