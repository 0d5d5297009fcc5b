"""What a cloud's services know of servers: Neutron their ports, Cinder their volumes, a Nova which are its own.

Read only. Every method raises Unreachable where the service does not answer, or not in words that are understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sterna.domain.model import Value


class ServerPort(Value):
    """One port of a server."""

    id: str
    server: str
    project_id: str
    network: str
    """Name of its network, else its ID."""
    mac: str
    addresses: tuple[str, ...] = ()
    """IPv4 and IPv6."""
    subnets: tuple[str, ...] = ()
    """IDs of their subnets, in the same order."""
    network_id: str = ""
    status: str = ""
    """`ACTIVE`, `BUILD`, `DOWN`, `ERROR`."""


class VolumeAttachment(Value):
    """One server's admission to a volume, on one host."""

    id: str
    server: str
    status: str


class CloudVolume(Value):
    """One volume and all its attachments."""

    id: str
    project_id: str
    attachments: tuple[VolumeAttachment, ...] = ()


class PortReads(Protocol):
    """Neutron."""

    async def ports(self, servers: Sequence[str]) -> list[ServerPort]:
        """All ports of these servers."""


class VolumeReads(Protocol):
    """Cinder."""

    async def volume(self, id: str) -> CloudVolume | None:
        """None where there is no such volume."""


class NovaReads(Protocol):
    """A Nova that has hosts of its own."""

    async def host_of(self, server: str) -> str | None:
        """The host that it believes the server to be on; None where it does not know the server."""

    async def hosts(self) -> list[str]:
        """The hosts it manages, as it calls them."""
