"""What a running guest's next start needs and the guest itself has not. Pure.

Its persistent definition was changed while it ran. None of that travels, so the destination must have it.
"""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import NextStart, Nic

ONLY_PERSISTENT = "(only the persistent definition names it: the VM could not be started there)"


class Definition(Protocol):
    """The parts of a VM's definition that are compared."""

    @property
    def nics(self) -> tuple[Nic, ...]:
        """As `Vm.nics`."""

    @property
    def immovable(self) -> tuple[str, ...]:
        """As `Vm.immovable`."""

    @property
    def machine(self) -> str:
        """As `Vm.machine`."""


def next_start(live: Definition, inactive: Definition) -> NextStart:
    """What the persistent definition has besides disks and references, and the running guest has not."""
    return NextStart(
        nics=tuple(nic for nic in inactive.nics if not any(_same_place(nic, plugged) for plugged in live.nics)),
        devices=tuple(device for device in inactive.immovable if device not in live.immovable),
        machine=inactive.machine if inactive.machine != live.machine else "",
    )


def _same_place(nic: Nic, plugged: Nic) -> bool:
    """The same NIC, on the same bridge or parent as far as both definitions name one."""
    at = (nic.bridge, plugged.bridge), (nic.parent, plugged.parent)
    return nic.mac.lower() == plugged.mac.lower() and all(a == b for a, b in at if a and b)
