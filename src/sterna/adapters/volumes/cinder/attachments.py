"""Cinder's attachments API (microversion 3.44) in the few words the provider needs. Knows no disk and no migration.

An attachment is one host's admission to one volume. Its life here: `create` with the host's connector
(`attaching`), `complete` (`attached`), `delete`. Cinder reports an attachment's host only once it is `attached`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sterna.adapters.openstack.session import Cloud
from sterna.domain.errors import NotFound

if TYPE_CHECKING:
    import requests
    from openstack.connection import Connection

ATTACHED = "attached"
ATTACHING = "attaching"
HALF_MADE = ("reserved", "error_attaching")
"""A create that failed half-way: no host was admitted, or storage refused."""


@dataclass(frozen=True)
class Attachment:
    """One of a volume's attachments."""

    id: str
    status: str
    instance: str | None
    host: str | None
    """None where Cinder does not say: before it is `attached`."""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How its host reaches the volume. May hold secrets: never journaled, never logged."""
    read_only: bool = False


@dataclass(frozen=True)
class VolumeSeen:
    """A volume and its attachments as Cinder has them now."""

    id: str
    status: str
    multiattach: bool
    encrypted: bool
    read_only: bool
    moving: str | None
    """Cinder's own migration of the volume, in its words; None where there is none."""
    attachments: tuple[Attachment, ...]

    def of(self, instance: str) -> tuple[Attachment, ...]:
        """Those of one VM."""
        return tuple(a for a in self.attachments if a.instance == instance)


class Attachments:
    """What Cinder is asked, request by request. Errors are those of `adapters.openstack.session`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def look(self, volume: str) -> VolumeSeen:
        """Reads only. Raises NotFound where there is no such volume."""

        def read(cloud: Connection) -> VolumeSeen:
            raw = _answer(cloud.block_storage.get(f"/volumes/{volume}"))["volume"]
            query = {"volume_id": volume, "all_tenants": "1"}
            listed = _answer(cloud.block_storage.get("/attachments/detail", params=query))["attachments"]
            return _seen(raw, listed)

        return await self._cloud.ask(f"read volume {volume}", read, of="cinder")

    async def create(self, volume: str, instance: str, connector: Mapping[str, Any]) -> Attachment:
        """Admit the connector's host. Raises Unknown where it may have been done.

        The connector goes along at once: an attachment made without one and updated afterwards is refused (409).
        """
        body = {"attachment": {"volume_uuid": volume, "instance_uuid": instance, "connector": dict(connector)}}

        def post(cloud: Connection) -> Attachment:
            return _attachment(_answer(cloud.block_storage.post("/attachments", json=body))["attachment"], {})

        return await self._cloud.change(f"attach volume {volume} to {connector['host']}", post, of="cinder")

    async def complete(self, attachment: str) -> None:
        """The host uses it: Cinder's record becomes `attached`, the volume `in-use`."""

        def post(cloud: Connection) -> None:
            _check(cloud.block_storage.post(f"/attachments/{attachment}/action", json={"os-complete": attachment}))

        await self._cloud.change(f"complete attachment {attachment}", post, of="cinder")

    async def delete(self, attachment: str) -> None:
        """Withdraw it; one that is gone is not an error."""

        def delete(cloud: Connection) -> None:
            _check(cloud.block_storage.delete(f"/attachments/{attachment}"))

        try:
            await self._cloud.change(f"delete attachment {attachment}", delete, of="cinder")
        except NotFound:
            return


def _check(response: requests.Response) -> None:
    from openstack.exceptions import raise_from_response

    raise_from_response(response)


def _answer(response: requests.Response) -> dict[str, Any]:
    _check(response)
    return dict(response.json())


def _seen(raw: Mapping[str, Any], listed: list[dict[str, Any]]) -> VolumeSeen:
    hosts = {a["attachment_id"]: a.get("host_name") for a in raw.get("attachments", ())}
    moving = raw.get("os-vol-mig-status-attr:migstat")
    return VolumeSeen(
        id=raw["id"],
        status=raw["status"],
        multiattach=bool(raw.get("multiattach")),
        encrypted=bool(raw.get("encrypted")),
        read_only=str((raw.get("metadata") or {}).get("readonly", "")).lower() == "true",
        moving=moving if moving not in (None, "none", "success", "error") else None,
        attachments=tuple(_attachment(a, hosts) for a in listed),
    )


def _attachment(raw: Mapping[str, Any], hosts: Mapping[str, str | None]) -> Attachment:
    return Attachment(
        id=raw["id"],
        status=raw["status"],
        instance=raw.get("instance"),
        host=hosts.get(raw["id"]),
        connection=raw.get("connection_info") or {},
        read_only=raw.get("attach_mode") == "ro",
    )
