"""Neutron's ports and bindings as its real server answers (recorded from 29.0.0, trimmed), for `ScriptedCloud`.

What is easily got wrong stands beside the answer. `answers` overrides the next answer to a request that matches.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sterna.adapters.network.neutron.network import NeutronNetwork
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.domain.model import GuestState, Nic, Vm
from tests.scripted_cloud import Answer, Asked, ScriptedCloud

NETWORK = "5c5b1a3e-0000-4000-8000-000000000001"
PORT = "9a3d6d60-1ff6-4d05-9c88-2b20a6f91c64"
VM = "537bed83-11e9-4076-a18a-954640d53db6"
SUBPORT = "e0a7a1d2-77c5-4c43-90c4-5f6f8c6bd201"
DETAILS = {"connectivity": "l2", "port_filter": False, "ovs_hybrid_plug": False, "datapath_type": "netdev",
           "bridge_name": "br-int"}  # fmt: skip


MAC = "52:54:00:74:00:14"
MOVE = ("host1", "host2")


def vm(port_id: str | None = PORT) -> Vm:
    nic = Nic(mac=MAC, plug="ovs", port_id=port_id, bridge="br-int", vlan=3, mtu=1500, device="vnet0")
    return Vm(uuid=VM, name="tern", state=GuestState.RUNNING, memory_bytes=1, vcpus=1, nics=(nic,))


def error(kind: str, message: str) -> dict[str, Any]:
    """The body of every refusal."""
    return {"NeutronError": {"type": kind, "message": message, "detail": ""}}


class ScriptedNeutron:
    """One port, maybe a trunk's parent, on hosts whose agents are alive or not."""

    def __init__(self, *, extended: bool = True, trunk: bool = False) -> None:
        self.extended, self.dead_hosts = extended, set[str]()
        self.bindings: dict[str, dict[str, Any]] = {"host1": _binding("host1", "ACTIVE")}
        self.status = "ACTIVE"
        self.owner = VM
        self.subport_host = "host1" if trunk else ""
        self.answers: list[tuple[str, str, Answer]] = []
        """(method, end of the path, answer): given once, in this order; `lost` ones after the change was made."""

    def __call__(self, asked: Asked) -> Answer:
        path = asked.path.removeprefix("/v2.0").partition("?")[0]
        for planned in self.answers:
            method, end, answer = planned
            if method == asked.method and path.endswith(end):
                self.answers.remove(planned)
                if answer.lost:
                    self._serve(asked, path)
                return answer
        return self._serve(asked, path)

    def _serve(self, asked: Asked, path: str) -> Answer:
        if path == "/extensions/binding-extended":
            found = {"extension": {"alias": "binding-extended", "name": "Port Bindings Extended"}}
            gone = error("HTTPNotFound", "Extension with alias binding-extended does not exist")
            return Answer(200, found) if self.extended else Answer(404, gone)
        if path == "/agents":
            host = asked.path.rpartition("host=")[2]
            agent = {"binary": "neutron-openvswitch-agent", "host": host, "alive": host not in self.dead_hosts}
            return Answer(200, {"agents": [agent] if host in ("host1", "host2") else []})
        if path == f"/networks/{NETWORK}":
            return Answer(200, {"network": {"id": NETWORK, "mtu": 1450}})
        if path == f"/ports/{SUBPORT}" and self.subport_host:
            if asked.method == "PUT":
                self.subport_host = asked.body["port"]["binding:host_id"]
            return Answer(200, {"port": {"id": SUBPORT, "binding:host_id": self.subport_host}})
        if path == f"/ports/{PORT}":
            return self._port(asked)
        if (matched := re.fullmatch(rf"/ports/{PORT}/bindings(?:/([^/]+))?(/activate)?", path)) and self.extended:
            return self._bindings(asked, matched[1] or "", activate=bool(matched[2]))
        return Answer(404, error("PortNotFound", f"{path} could not be found."))

    @property
    def active(self) -> dict[str, Any]:
        """The binding that counts."""
        return next(b for b in self.bindings.values() if b["status"] == "ACTIVE")

    def _port(self, asked: Asked) -> Answer:
        if asked.method == "PUT":
            body = asked.body["port"]
            if "binding:profile" in body:
                self.active["profile"] = body["binding:profile"]
            if "binding:host_id" in body:
                del self.bindings[self.active["host"]]
                host = body["binding:host_id"]
                self.bindings[host] = _binding(host, "ACTIVE")
                if host in self.dead_hosts:
                    self.bindings[host]["vif_type"] = "binding_failed"
        active = self.active
        port: dict[str, Any] = {
            "id": PORT, "network_id": NETWORK, "fixed_ips": [{"subnet_id": "s", "ip_address": "192.0.2.7"}],
            "status": self.status, "device_id": self.owner, "device_owner": "compute:nova",
            "mac_address": "52:54:00:74:00:14", "binding:host_id": active["host"], "binding:vnic_type": "normal",
            "binding:profile": active["profile"], "binding:vif_type": active["vif_type"],
            "binding:vif_details": active["vif_details"],
        }  # fmt: skip
        if self.subport_host:
            inner = {"segmentation_id": 7, "segmentation_type": "vlan", "port_id": SUBPORT}
            port["trunk_details"] = {"trunk_id": "t", "sub_ports": [inner]}
        return Answer(200, {"port": port})

    def _bindings(self, asked: Asked, host: str, *, activate: bool) -> Answer:
        if asked.method == "GET":
            return Answer(200, {"bindings": copy.deepcopy(list(self.bindings.values()))})
        if asked.method == "POST":
            return self._create(asked.body["binding"])
        if asked.method == "DELETE" and host in self.bindings:  # also the ACTIVE one
            del self.bindings[host]
            return Answer(204)
        if host not in self.bindings:
            missing = f"Binding for port {PORT} for host {host} could not be found."
            return Answer(404, error("PortBindingNotFound", missing))
        mine = self.bindings[host]
        if not activate:
            if mine["status"] == "INACTIVE" and mine["vif_type"] == "unbound":
                return Answer(500, error("HTTPInternalServerError", "Request Failed: internal server error"))
            if host in self.dead_hosts:  # the profile is changed all the same
                mine.update(profile=asked.body["binding"]["profile"], vif_type="binding_failed", vif_details={})
                return _cannot(host)
            mine.update(_binding(host, mine["status"]), profile=asked.body["binding"]["profile"])
            return Answer(200, {"binding": mine})
        if mine["status"] == "ACTIVE":
            twice = f"Binding for port {PORT} on host {host} is already active."
            return Answer(409, error("PortBindingAlreadyActive", twice))
        self.active.update(status="INACTIVE", vif_type="unbound", vif_details={})
        mine["status"] = "ACTIVE"
        return Answer(200, mine)  # not wrapped in `binding`

    def _create(self, body: dict[str, Any]) -> Answer:
        host = body["host"]
        if host in self.bindings:
            twice = f"Binding for port {PORT} on host {host} already exists."
            return Answer(409, error("PortBindingAlreadyExists", twice))
        if host in self.dead_hosts:
            return _cannot(host)
        self.bindings[host] = _binding(host, "INACTIVE") | {"profile": body.get("profile", {})}
        return Answer(201, {"binding": self.bindings[host]})


def _cannot(host: str) -> Answer:
    message = f"Binding for port {PORT} on host {host} could not be created."
    return Answer(500, error("PortBindingError", message))


def _binding(host: str, status: str) -> dict[str, Any]:
    return {"host": host, "status": status, "vif_type": "ovs", "vif_details": dict(DETAILS), "vnic_type": "normal",
            "profile": {}}  # fmt: skip


@contextmanager
def serving(neutron: ScriptedNeutron) -> Iterator[tuple[NeutronNetwork, ScriptedCloud]]:
    with ScriptedCloud(neutron) as scripted:
        cloud = Cloud(CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw"))
        yield NeutronNetwork(cloud), scripted
