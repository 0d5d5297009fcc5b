"""Which virtual function a NIC gets on a host: a free one of its physical network. Pure.

Called by the agent's `ClaimDevices` (protocol P8) through the `hostdev` plug type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from sterna.domain.model import Value


class VirtualFunction(Value):
    """One VF of a host, as its kernel shows it."""

    address: str
    """PCI, as the kernel writes it: `0000:3b:02.4`."""
    parent: str
    """The physical function's network device: `enp59s0f0`."""
    physical_network: str
    driver: str = ""
    """What drives it now: `vfio-pci` while a guest has it."""


GUESTS_DRIVER = "vfio-pci"


def free(
    functions: Iterable[VirtualFunction], physical_network: str, taken: Collection[str]
) -> list[VirtualFunction]:
    """The VFs of that network that neither a guest nor a claim has; `taken`: addresses of claims."""
    return [
        f
        for f in functions
        if f.physical_network == physical_network and f.driver != GUESTS_DRIVER and f.address not in taken
    ]


def choose(
    functions: Collection[VirtualFunction], physical_network: str, taken: Collection[str]
) -> VirtualFunction | None:
    """The first free VF of the physical function that has the most of them left; None where none is free.

    The same answer for the same question, so that a step that is repeated claims the same one.
    """
    candidates = free(functions, physical_network, taken)
    left = Counter(f.parent for f in candidates)
    return min(candidates, key=lambda f: (-left[f.parent], f.parent, f.address), default=None)
