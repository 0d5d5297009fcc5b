"""Neutron's ports and their bindings, request by request (adapters.network.bindings.BindingService).

The paths are Neutron's own (extension `binding-extended`). The caller's user needs the role `service`: bindings are
for services alone. What Neutron does that its documents do not say is in docs/how-to/openstack.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sterna.adapters.network.bindings import CannotBind
from sterna.adapters.openstack.session import Cloud
from sterna.domain.bindings import MIGRATING_TO, Act, Binding, Port, Subport, Verb
from sterna.domain.errors import NotFound
from sterna.domain.model import Data

if TYPE_CHECKING:
    from openstack.connection import Connection

EXTENSION = "binding-extended"
_OF_ONE_HOST = (
    MIGRATING_TO, "pci_slot", "pci_vendor_info", "physical_network", "card_serial_number", "pf_mac_address",
    "vf_num",
)  # fmt: skip
"""Keys of a binding's profile that mean nothing on another host."""


class NeutronPorts:
    """Requests about ports. Raises as `Cloud` does, and CannotBind where no agent of the host can take the port."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._extended: bool | None = None

    async def extended(self) -> bool:
        """Does this Neutron have multiple bindings? Asked once."""
        if self._extended is None:
            try:
                await self._get(f"/extensions/{EXTENSION}", "the extension of multiple port bindings")
                self._extended = True
            except NotFound:
                self._extended = False
        return self._extended

    async def raw(self, port_id: str) -> Data:
        """The port as Neutron shows it. Raises NotFound."""
        found = await self._get(_path("ports", port_id), f"read port {port_id}")
        return dict(found["port"])

    async def port(self, port_id: str) -> Port:
        """The port with all its bindings, and its subports where it is a trunk's parent."""
        raw = await self.raw(port_id)
        bindings = await self.bindings(port_id)
        subports = []
        for sub in (raw.get("trunk_details") or {}).get("sub_ports", ()):
            try:
                inner = await self.raw(sub["port_id"])
            except NotFound:  # deleted since: its parent is still there
                continue
            if inner.get("binding:host_id"):
                subports.append(Subport(port_id=inner["id"], host=inner["binding:host_id"]))
        return Port(id=port_id, vm_uuid=owner_of(raw), bindings=bindings, subports=tuple(subports))

    async def bindings(self, port_id: str) -> tuple[Binding, ...]:
        """All of a port. Raises NotFound."""
        found = await self._get(_path("ports", port_id, "bindings"), f"read the bindings of port {port_id}")
        return tuple(_binding(b) for b in found["bindings"])

    async def mtu(self, network_id: str) -> int | None:
        """The MTU of a network's ports."""
        found = await self._get(_path("networks", network_id), f"read network {network_id}")
        mtu = found["network"].get("mtu")
        return int(mtu) if mtu else None

    async def live_agents(self, host: str) -> list[str] | None:
        """The binaries of the network agents alive on a host; None where Neutron does not list them."""
        try:
            found = await self._get(f"/agents?host={quote(host, safe='')}", f"list the network agents of {host}")
        except NotFound:
            return None
        return [agent["binary"] for agent in found["agents"] if agent["alive"]]

    async def bind_to(self, port_id: str, host: str) -> None:
        """`binding:host_id`: without multiple bindings, and for subports."""
        body = {"port": {"binding:host_id": host}}
        await self._send("put", _path("ports", port_id), body, f"bind port {port_id} to {host}")

    async def act(self, act: Act, port: Port, destination: str) -> None:
        """One request."""
        all_of_them = _path("ports", act.port_id, "bindings")
        path = _path("ports", act.port_id, "bindings", act.host)
        mine, what = port.on(act.host), f"{act.verb} the binding of port {act.port_id} on {act.host}"
        profile = {k: v for k, v in (mine.profile if mine else {}).items() if k != MIGRATING_TO}
        if act.verb is Verb.MARK:
            profile[MIGRATING_TO] = destination
        match act.verb:
            case Verb.CREATE:
                await self._send("post", all_of_them, {"binding": _new(act.host, port)}, what)
            case Verb.ACTIVATE:
                await self._send("put", f"{path}/activate", None, what)
            case Verb.DELETE:
                await self._send("delete", path, None, what)
            case Verb.MOVE | Verb.MOVE_SUBPORT:
                await self.bind_to(act.port_id, act.host)
            case Verb.MARK | Verb.UNMARK:
                # Never through the port's own `binding:profile`: Neutron unbinds the port, tells the agents, and
                # binds it again. An agent that looks in between kills the port: the guest is silent until it looks
                # again.
                await self._send("put", path, {"binding": {"profile": profile}}, what)

    async def _get(self, path: str, what: str) -> Data:
        return await self._cloud.ask(what, lambda c: _read(c.network.get(path)), of="neutron")

    async def _send(self, method: str, path: str, body: Data | None, what: str) -> None:
        def act(connection: Connection) -> None:
            more = {} if body is None else {"json": body}
            answer = getattr(connection.network, method)(path, **more)
            if answer.status_code == 500 and "PortBindingError" in answer.text:
                raise CannotBind(
                    f"{what}: no network agent there can take the port",
                    fix="check that it is alive (openstack network agent list) and has the port's physical network",
                )
            _read(answer)

        await self._cloud.change(what, act, of="neutron")


def _path(*parts: str) -> str:
    """Ids and names come from other hosts: none of them is more than one part of it."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def owner_of(raw: Data) -> str:
    """The VM that a port is for, as Nova, or whoever gave it to the VM, has written it down; '' for none."""
    return str(raw.get("device_id") or "")


def _read(answer: Any) -> Data:
    """The answer's body. Raises the library's own error for anything but success."""
    from openstack import exceptions

    exceptions.raise_from_response(answer)
    return dict(answer.json()) if answer.content else {}


def _binding(raw: Data) -> Binding:
    return Binding(
        host=raw["host"],
        active=raw["status"] == "ACTIVE",
        vif_type=raw.get("vif_type") or "",
        vif_details=raw.get("vif_details") or {},
        profile=raw.get("profile") or {},
    )


def _new(host: str, port: Port) -> Data:
    """What a new binding takes over from the one that is ACTIVE."""
    profile = port.active.profile if port.active else {}
    kept = {k: v for k, v in profile.items() if k not in _OF_ONE_HOST}
    return {"host": host, "profile": kept | {MIGRATING_TO: host}}
