"""The network service: port bindings per host. The `native` provider has none and takes the XML's word."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Nic, Vm


class Network(Protocol):
    """Bindings of one VM's ports. Every method may be repeated."""

    async def nics_for(self, vm: Vm, host: str) -> tuple[Nic, ...]:
        """P5, F6: the VM's NICs as `host` must plug them; makes an inactive binding for `host` where the service
        has bindings."""

    async def activate(self, vm: Vm, host: str) -> None:
        """F7: the ports are `host`'s now; other hosts' bindings are deleted."""

    async def withdraw(self, vm: Vm, host: str) -> None:
        """R6: delete `host`'s inactive bindings; the active one elsewhere is left alone."""
