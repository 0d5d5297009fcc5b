"""`ports.handshake.Handshake` between simulated hosts."""

from __future__ import annotations

from sterna.domain.errors import Permanent
from sterna.domain.model import Refusal
from sterna.sim.world.world import World


class SimHandshake:
    """One simulated host's half. `SimHost.authority` is who has signed its certificates."""

    def __init__(self, world: World, host: str) -> None:
        self._world, self._host = world, world.hosts[host]

    async def expect(self) -> int:
        """See ports.handshake.Handshake.expect."""
        if not self._host.abilities.tls:
            raise Permanent(f"{self._host.name} has no certificates")
        return 40_000

    async def shake(self, address: str, port: int) -> Refusal | None:
        """See ports.handshake.Handshake.shake."""
        other = self._world.host_at(f"//{address}/")
        if other is not None and other.authority == self._host.authority and self._host.abilities.tls:
            return None
        message = f"TLS with {address} fails: unable to get local issuer certificate"
        return Refusal(code="tls-handshake", message=message, fix="see to the certificates")
