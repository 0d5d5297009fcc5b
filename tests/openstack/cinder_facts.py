"""What lab tests ask Cinder and tgt, and how they give a VM its volumes as Nova would."""

from __future__ import annotations

from functools import partial
from typing import Any

from sterna.lab.lab import Lab
from sterna.lab.places import initiator_name, target_name
from tests.openstack.servers import Servers


class Volumes:
    """Some volumes of one VM. Made first, attached in Cinder once there is a VM: `lab.create_vm(disks=v.specs)`."""

    def __init__(self, lab: Lab, servers: Servers, number: int) -> None:
        self._lab, self._servers = lab, servers
        self.ids = [servers.ask(_make_volume) for _ in range(number)]
        self.specs = [f"volume:{volume}" for volume in self.ids]

    def attach(self, vm: str, host: str) -> None:
        """As they are once Nova has started the VM there."""
        for volume in self.ids:
            self._servers.ask(partial(_attach, volume=volume, vm=vm, host=host))

    def attachments(self) -> list[list[tuple[str, str, str]]]:
        """(id, host, status) of each volume's, by Cinder's word."""
        return [self._servers.ask(partial(_attachments, volume=volume)) for volume in self.ids]

    def must_be_only(self, host: str) -> None:
        """Cinder and tgt agree: this host, and nobody else."""
        found = [[(where, status) for _, where, status in each] for each in self.attachments()]
        assert found == [[(host, "attached")]] * len(self.ids)
        admitted = [self._lab.iscsi.admitted(target_name(volume)) for volume in self.ids]
        assert admitted == [[initiator_name(host)]] * len(self.ids)


def _make_volume(cloud: Any) -> str:
    made = cloud.block_storage.create_volume(size=1, volume_type="plain")
    cloud.block_storage.wait_for_status(made, "available", interval=0.2, wait=60)
    return str(made.id)


def _attach(cloud: Any, volume: str, vm: str, host: str) -> None:
    words = {"host": host, "initiator": initiator_name(host), "ip": "10.73.0.11", "multipath": False}
    storage = cloud.block_storage
    storage.complete_attachment(storage.create_attachment(volume, instance=vm, connector=words))


def _attachments(cloud: Any, volume: str) -> list[tuple[str, str, str]]:
    hosts = {a["attachment_id"]: a["host_name"] for a in cloud.block_storage.get_volume(volume).attachments}
    found = cloud.block_storage.attachments(volume_id=volume, all_projects=True)
    return sorted((a.id, hosts.get(a.id, "?"), a.status) for a in found)
