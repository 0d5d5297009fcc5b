"""A check of a VM that uses one service of a cloud."""

from __future__ import annotations

from typing import Any

from sterna.adapters.images.glance import GlanceImages
from sterna.adapters.network.neutron.network import NeutronNetwork
from sterna.adapters.openstack.session import Cloud
from sterna.adapters.volumes.cinder.volumes import CinderVolumes, Connector
from sterna.domain.errors import Unreachable
from sterna.domain.model import Disk, DiskKind, GuestState, Nic, Vm


async def check_at(cloud: Cloud, service: str) -> str:
    """What is said against a VM of it."""
    try:
        match service:
            case "Neutron":
                nic = Nic(mac="52:54:00:00:00:01", plug="ovs", port_id="p1")
                facts: dict[str, Any] = {
                    "name": "web",
                    "state": GuestState.RUNNING,
                    "memory_bytes": 1,
                    "vcpus": 1,
                    "nics": (nic,),
                }
                await NeutronNetwork(cloud).check(Vm(uuid="u", **facts), "host1", "host2")
            case "Cinder":
                disk = Disk(target="vda", kind=DiskKind.ISCSI, volume_id="9a3d6d60-1ff6-4d05-9c88-2b20a6f91c64")
                (found,) = await CinderVolumes(cloud, Connector("host2", "192.0.2.1", "iqn.x")).check(disk, "host1")
                return found.message
            case "Glance":
                await GlanceImages(cloud).properties("i1")
    except Unreachable as error:
        return error.message
    raise AssertionError("nothing is said")
