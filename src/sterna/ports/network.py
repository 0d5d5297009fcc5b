"""The network service: port bindings per host. The `native` provider has none and uses the XML."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Nic, Refusal, Vm


class Network(Protocol):
    """Bindings of one VM's ports. Every method may be repeated, after any partial run, and by either host.

    Which ports are a VM's is the service's word, not its host's: `check` and `nics_for` refuse the port of another
    VM, and the rest treats it as one that the service does not know.

    All of them raise Temporary (Unreachable, Unknown) where the service does not answer, refuses for now, or its
    answer was lost, and NotFound for a port it does not know.
    """

    @property
    def service(self) -> str:
        """The service that it asks: `neutron`; '' for none."""

    async def check(self, vm: Vm, source: str, destination: str) -> list[Refusal]:
        """The service's reasons against this move: ports it does not know, or has for another VM or elsewhere, no
        agent on the destination that could take them. Changes nothing."""

    async def prepare(self, vm: Vm, source: str, destination: str) -> None:
        """Before P3, on the source: an INACTIVE binding for the destination, and the ports say where they go.

        One that an earlier crash left is adopted. Raises Conflict for a port bound to a third host."""

    async def nics_for(self, vm: Vm, source: str, destination: str) -> tuple[Nic, ...]:
        """P5: the VM's NICs as `destination` must plug them, from its bindings where the service has bindings.

        Raises Refused with every NIC that cannot be plugged there, or whose port the service has for another VM, or
        not on `source`."""

    async def switch(self, vm: Vm, source: str, destination: str) -> None:
        """At the switch-over: the destination's bindings are the ACTIVE ones; the source's stay until F7."""

    async def settle(self, vm: Vm, source: str, destination: str) -> None:
        """F7: the ports are the destination's, other hosts' bindings are gone, and they are not marked as
        migrating."""

    async def give_back(self, vm: Vm, source: str, destination: str) -> bool:
        """R6, first: the source's bindings are the ACTIVE ones again, if the destination's were activated early.

        True where they were, now or when this was asked before: the source's network agent takes such a port off
        its switch, and wires it again."""

    async def withdraw(self, vm: Vm, source: str, destination: str) -> None:
        """R6: as before `prepare`. An ACTIVE binding is never deleted: it is given back first."""

    async def wired(self, vm: Vm, host: str) -> bool:
        """Does the service report every port as wired on `host`? True where there is no service to ask."""
