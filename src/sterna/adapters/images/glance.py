"""Glance (`ports.image.Images`): asked where the domain's metadata names an image and no more (protocol P7)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from sterna.adapters.openstack.session import Cloud

if TYPE_CHECKING:
    from openstack.connection import Connection


_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
"""It becomes part of a path."""


class GlanceImages:
    """Images of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def properties(self, image: str) -> dict[str, str] | None:
        """Every property whose value is text; None where the image was deleted, which its VMs outlive, and for what
        is no image's id: it comes from the domain's metadata, perhaps from another host."""
        if not _ID.fullmatch(image):
            return None

        def read(cloud: Connection) -> dict[str, str] | None:
            from openstack.exceptions import raise_from_response

            response = cloud.image.get(f"/images/{image}")
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            raise_from_response(response)
            return {name: value for name, value in response.json().items() if isinstance(value, str)}

        async with self._cloud.asking_for_a_check("Glance"):
            return await self._cloud.ask(f"read image {image}", read, of="glance")
