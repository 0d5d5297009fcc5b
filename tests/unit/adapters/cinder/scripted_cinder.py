"""Cinder in a few lines, as the recorded answers show it: one volume of a VM on host1, and faults on demand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.volumes.cinder.volumes import CinderVolumes, Connector
from sterna.domain.model import Disk, DiskKind, IscsiSource
from sterna.ports.secrets import Keyring
from tests.scripted_cloud import Answer, Asked, ScriptedCloud

VOLUME = "f1435e20-3d68-479a-b6ed-68c2d3f147ee"
VM = "537bed83-11e9-4076-a18a-954640d53db6"
IQN = f"iqn.2026-11.lab.sterna:{VOLUME}"


def initiator(host: str) -> str:
    return f"iqn.2026-11.lab.sterna:{host}"


def disk(**more: Any) -> Disk:
    source = IscsiSource(target=IQN, lun=1, portal_host="10.73.0.1", initiator=initiator("host1"))
    facts: dict[str, Any] = {"volume_id": VOLUME, "vm_uuid": VM, "iscsi": source, "capacity_bytes": 1 << 30}
    return Disk(**{"target": "vda", "kind": DiskKind.ISCSI, **facts, **more})


def provider(cloud: ScriptedCloud, host: str, qemu_img: str, keyring: Keyring | None = None) -> CinderVolumes:
    access = CloudAccess(auth_url=cloud.auth_url, username="sterna", password="pw", timeout_s=5)
    address = f"10.73.0.1{host[-1]}"
    me = Connector(host, address, initiator(host))
    return CinderVolumes(Cloud(access), me, qemu_img=qemu_img, keyring=keyring)


class ScriptedCinder:
    """`attachments`: id -> facts, host and all. `faults`: what is answered instead, each once."""

    def __init__(self) -> None:
        self.volume: dict[str, Any] = {"id": VOLUME, "status": "in-use", "multiattach": False, "encrypted": False}
        self.volume |= {"metadata": {}, "os-vol-mig-status-attr:migstat": None}
        self.connection: dict[str, Any] = {
            "driver_volume_type": "iscsi",
            "target_iqn": IQN,
            "target_lun": 1,
            "target_portal": "10.73.0.1:3260",
            "encrypted": False,
        }
        self.attachments: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, tuple[Answer, bool]] = {}
        """What the request is answered instead, and whether it is done all the same."""
        self._numbers: Iterator[int] = count(1)
        self.add("host1", "attached")

    def add(self, host: str, status: str, **more: Any) -> str:
        number = f"00000000-0000-0000-0000-{next(self._numbers):012}"
        facts = {"id": number, "status": status, "instance": VM, "volume_id": VOLUME, "attach_mode": "rw"}
        self.attachments[number] = {**facts, "host": host, "connection_info": dict(self.connection), **more}
        return number

    def hosts(self) -> list[tuple[str, str]]:
        return sorted((a["host"], a["status"]) for a in self.attachments.values())

    def __call__(self, asked: Asked) -> Answer | None:
        path = asked.path.partition("?")[0].removeprefix("/v3")
        post = "complete" if path.endswith("/action") else "create"
        act = {"POST": post, "DELETE": "delete"}.get(asked.method, "")
        fault, done = self.faults.pop(act, (None, True))
        answer = self._answer(asked.method, path, asked.body) if done else None
        return fault or answer

    def _answer(self, method: str, path: str, body: Any) -> Answer | None:
        words = path.strip("/").split("/")
        if method == "GET" and words == ["volumes", VOLUME]:
            return Answer(200, {"volume": self._shown()})
        if method == "GET" and words == ["attachments", "detail"]:
            return Answer(200, {"attachments": [_public(a) for a in self.attachments.values()]})
        if method == "POST" and words == ["attachments"]:
            return self._create(body["attachment"])
        if len(words) < 2 or words[1] not in self.attachments:
            return None
        if method == "POST":
            self.attachments[words[1]]["status"] = "attached"
            self.volume["status"] = "in-use"
            return Answer(204)
        self.attachments.pop(words[1])
        self.volume["status"] = "in-use"
        return Answer(200, {"attachments": []})

    def _create(self, wanted: dict[str, Any]) -> Answer:
        if self.volume["status"] not in ("in-use", "reserved"):
            reason = f"status must be available, but the current status is {self.volume['status']}"
            return Answer(400, {"badRequest": {"code": 400, "message": f"Invalid volume: Volume {reason}."}})
        made = self.add(wanted["connector"]["host"], "attaching")
        self.volume["status"] = "attaching"
        return Answer(200, {"attachment": _public(self.attachments[made]) | {"status": "reserved"}})

    def _shown(self) -> dict[str, Any]:
        attached = [a for a in self.attachments.values() if a["status"] == "attached"]
        shown = [{"attachment_id": a["id"], "server_id": VM, "host_name": a["host"]} for a in attached]
        return {**self.volume, "attachments": shown}


def _public(attachment: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in attachment.items() if k != "host"}
