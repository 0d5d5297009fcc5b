"""Neutron, Cinder and a Nova, read as an administrator (`ports.cloud`). Nothing is changed through these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from sterna.adapters.openstack.session import Cloud
from sterna.domain.errors import SternaError, Unreachable
from sterna.ports.cloud import CloudVolume, ServerPort, VolumeAttachment

if TYPE_CHECKING:
    import requests
    from openstack.connection import Connection

T = TypeVar("T")

AT_ONCE = 40
"""Servers in one question: their UUIDs are in the address, which servers limit to some kB."""
_FIX = "check that it answers, and `[compute]` and `[access.keystone]` in the controller's settings"


class NeutronReads:
    """`ports.cloud.PortReads`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._names: dict[str, str] = {}

    async def ports(self, servers: Sequence[str]) -> list[ServerPort]:
        """See ports.cloud.PortReads.ports."""
        found: list[ServerPort] = []
        for begin in range(0, len(servers), AT_ONCE):
            found += await self._some(servers[begin : begin + AT_ONCE])
        return found

    async def _some(self, servers: Sequence[str]) -> list[ServerPort]:
        def read(cloud: Connection) -> list[ServerPort]:
            query = {"device_id": list(servers)}
            listed = _answer(cloud.network.get("/ports", params=query))["ports"]
            lacking = {port["network_id"] for port in listed} - self._names.keys()
            if lacking:
                networks = _answer(cloud.network.get("/networks", params={"id": sorted(lacking)}))["networks"]
                self._names |= {network["id"]: network["name"] for network in networks}
            # a user may write any server's ID into a port; to bind it to a host is for services alone
            return [self._port(port) for port in listed if port.get("binding:host_id")]

        return await _read(self._cloud, "Neutron", "read the ports of servers", read)

    def _port(self, raw: dict[str, Any]) -> ServerPort:
        return ServerPort(
            id=raw["id"],
            server=raw["device_id"],
            project_id=raw.get("project_id") or raw.get("tenant_id") or "",
            network=self._names.get(raw["network_id"]) or raw["network_id"],
            mac=raw["mac_address"],
            addresses=tuple(ip["ip_address"] for ip in raw["fixed_ips"]),
            subnets=tuple(ip["subnet_id"] for ip in raw["fixed_ips"]),
            network_id=raw["network_id"],
            status=raw.get("status") or "",
        )


class CinderReads:
    """`ports.cloud.VolumeReads`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def volume(self, id: str) -> CloudVolume | None:
        """See ports.cloud.VolumeReads.volume."""

        def read(cloud: Connection) -> CloudVolume | None:
            answer = _item(cloud.block_storage.get(f"/volumes/{id}"))
            if answer is None:
                return None
            raw = answer["volume"]
            query = {"volume_id": id, "all_tenants": "1"}
            listed = _answer(cloud.block_storage.get("/attachments", params=query))["attachments"]
            own = [a for a in listed if a["volume_id"] == id]
            return CloudVolume(
                id=raw["id"],
                project_id=raw.get("os-vol-tenant-attr:tenant_id") or "",
                attachments=tuple(
                    VolumeAttachment(id=a["id"], server=a.get("instance") or "", status=a["status"]) for a in own
                ),
            )

        return await _read(self._cloud, "Cinder", f"read volume {id}", read)


class OtherNova:
    """`ports.cloud.NovaReads`."""

    def __init__(self, cloud: Cloud, region: str, interface: str) -> None:
        """`region`: of that Nova, in the catalog."""
        self._cloud = cloud
        self._where = {"service_type": "compute", "region_name": region, "interface": interface}

    async def host_of(self, server: str) -> str | None:
        """See ports.cloud.NovaReads.host_of."""

        def read(cloud: Connection) -> str | None:
            path = f"/servers/{server}"
            answer = _item(cloud.session.get(path, endpoint_filter=self._where, raise_exc=False))
            return None if answer is None else str(answer["server"]["OS-EXT-SRV-ATTR:host"] or "none")

        return await _read(self._cloud, "Nova", f"read server {server}", read)

    async def hosts(self) -> list[str]:
        """See ports.cloud.NovaReads.hosts."""

        def read(cloud: Connection) -> list[str]:
            path = "/os-services?binary=nova-compute"
            answer = _answer(cloud.session.get(path, endpoint_filter=self._where, raise_exc=False))
            return [service["host"] for service in answer["services"]]

        return await _read(self._cloud, "Nova", "list its hosts", read)


def _answer(response: requests.Response) -> dict[str, Any]:
    """Raises openstacksdk's own error for anything but success."""
    from openstack.exceptions import raise_from_response

    raise_from_response(response)
    return dict(response.json())


def _item(response: requests.Response) -> dict[str, Any] | None:
    """The same of one item; None where the service itself says that it has none of that ID.

    Any other 404 does not count: it is a proxy's, or the catalog has a wrong address.
    """
    if response.status_code == HTTPStatus.NOT_FOUND and _says_not_found(response):
        return None
    return _answer(response)


def _says_not_found(response: requests.Response) -> bool:
    try:
        body = response.json()
    except ValueError:
        return False
    return isinstance(body, dict) and isinstance(body.get("itemNotFound"), dict)


async def _read(cloud: Cloud, service: str, what: str, act: Callable[[Connection], T]) -> T:
    """Raises Unreachable, also for a 404 that `act` has no meaning for."""
    try:
        async with cloud.asking_for_a_check(service):
            return await cloud.ask(what, act, of=service.lower())
    except Unreachable:
        raise
    except SternaError as error:
        raise Unreachable(f"{service} does not say: {error.message}", fix=error.fix or _FIX) from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unreachable(f"an answer of {service} cannot be read: {error!r}", fix=_FIX) from error
