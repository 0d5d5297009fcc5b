"""P7: the image's metadata, from the domain's own metadata, else from the image service; and what it demands.

Used by the step in `destination/prepare.py` and by the agent's check.
"""

from __future__ import annotations

from sterna.domain.image import unmet
from sterna.domain.model import Data, Refusal, Vm
from sterna.migration.context import HostPorts


async def image_of(host: HostPorts, vm: Vm) -> Data:
    """`{'uuid': ..., 'properties': {...}}`, or what there is of it.

    Raises Temporary, Unreachable or Permanent where the image service has to be asked and cannot be.
    """
    image, uuid = vm.image, vm.image.get("uuid")
    if image.get("properties") or not uuid or host.images is None:
        return image
    properties = await host.images.properties(str(uuid))
    return {**image, "properties": properties} if properties else image


async def against(host: HostPorts, image: Data) -> list[Refusal]:
    """What the image wants and this host has not."""
    properties = image.get("properties") or {}
    return unmet(properties, await host.hypervisor.host(), host.traits) if properties else []
