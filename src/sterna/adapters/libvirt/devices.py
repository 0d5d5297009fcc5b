"""`ports.hypervisor.Devices`: takes NICs from a running guest, and gives them to it (before M1, at F6)."""

from __future__ import annotations

import asyncio

import libvirt

from sterna.adapters.libvirt.observe import find
from sterna.adapters.libvirt.resources import lan_of
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.session.host import LibvirtHost
from sterna.adapters.libvirt.xml.metadata import parse_xml, to_text
from sterna.adapters.libvirt.xml.nic_forms import is_hot_unplugged, mac_of
from sterna.adapters.libvirt.xml.render import render_device
from sterna.domain.errors import NotFound, Temporary
from sterna.domain.model import Nic
from sterna.domain.plugs import plug_type
from sterna.domain.references import FUNCTIONS

_LETS_GO_S = 10.0
"""A guest lets go of a PCI device within a second or never; libvirt itself waits for 5 s."""
_LOOK_EVERY_S = 0.1


class LibvirtDevices(LibvirtHost):
    """Changes only the running guest, never its persistent definition."""

    async def detach_nic(self, uuid: str, nic: Nic) -> None:
        """Take the NIC away; not there is not an error. Returns when the guest has released it. Raises NotFound
        without such a running guest, Temporary while it is not released, or libvirt does not answer in time,
        Permanent.
        """

        def detach(conn: Connect) -> bool:
            domain = _running(conn, uuid)
            found = _interface(domain, nic)
            if found is None:
                return True
            domain.detachDeviceFlags(found, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            return _interface(domain, nic) is None

        gone: bool | None = None
        try:
            async with asyncio.timeout(_LETS_GO_S):
                gone = await self._ask_of(uuid, detach)
                while not gone:
                    await asyncio.sleep(_LOOK_EVERY_S)
                    gone = await self._ask_of(uuid, lambda conn: _interface(_running(conn, uuid), nic) is None)
        except TimeoutError:
            if gone is None:
                fix = "check whether the guest's QEMU hangs (`virsh domstate`)"
                raise Temporary(f"libvirt does not say whether it detaches NIC {nic.mac}", fix=fix) from None
            fix = "check that its kernel takes part in PCI hot-plug"
            raise Temporary(f"the guest does not release NIC {nic.mac}", fix=fix) from None

    async def attach_nic(self, uuid: str, nic: Nic) -> None:
        """Give it the NIC; idempotent. Raises NotFound without such a running guest, Permanent."""

        def attach(conn: Connect) -> None:
            domain = _running(conn, uuid)
            if _interface(domain, nic) is not None:
                return
            definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if domain.isPersistent() else 0)
            device = render_device(definition, nic, _pools(conn, definition, nic))
            domain.attachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        await self._ask_of(uuid, attach)


def _running(conn: Connect, uuid: str) -> libvirt.virDomain:
    domain = find(conn, uuid)
    if domain is None or not domain.isActive():
        raise NotFound(f"no VM {uuid} runs on this host")
    return domain


def _pools(conn: Connect, definition: str, nic: Nic) -> frozenset[str]:
    """The networks of virtual functions, of those that NICs of its MAC are on."""
    names = {
        source.get("network", "")
        for interface in parse_xml(definition).iterfind("devices/interface[@type='network']")
        for source in interface.iterfind("source")
        if mac_of(interface) == nic.mac.lower()
    }
    found = {name: lan_of(conn, name, "") for name in names}
    return frozenset(name for name, lan in found.items() if lan is not None and lan.forward == FUNCTIONS)


def _interface(domain: libvirt.virDomain, nic: Nic) -> str | None:
    """The live <interface> of that NIC, as text: a virtual function and its standby have the same MAC."""
    for interface in parse_xml(domain.XMLDesc(0)).iterfind("devices/interface"):
        address = interface.find("mac")
        same = address is not None and (address.get("address") or "").lower() == nic.mac.lower()
        if same and is_hot_unplugged(interface) == plug_type(nic).hot_unplugged:
            return to_text(interface)
    return None
