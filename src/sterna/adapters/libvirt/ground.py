"""What this host has of what a VM's definition names (`domain.references.Ground`). Blocking.

libvirt's part of it is here, the kernel's in `adapters/native/ground.py`.
"""

from __future__ import annotations

from functools import cached_property

import libvirt

from sterna.adapters.libvirt.claims import claims_of
from sterna.adapters.libvirt.connection import Connect
from sterna.adapters.libvirt.metadata import Element, parse_xml
from sterna.adapters.native import ground as kernel
from sterna.domain.references import Thing


class HostGround:
    """One look at this host, on behalf of the VM `besides`."""

    def __init__(self, conn: Connect, host: str, address: str, besides: str) -> None:
        self._conn, self._besides = conn, besides
        self.host, self.address = host or "this host", address

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        """See domain.references.Ground."""
        return kernel.thing(path, digest=digest)

    def bindable(self, address: str, port: int = 0, *, udp: bool = False) -> str:
        """See domain.references.Ground."""
        return kernel.bindable(address, port, udp=udp)

    def addresses_in(self, network: str) -> tuple[str, ...]:
        """See domain.references.Ground."""
        return kernel.addresses_in(network)

    def reaches(self, address: str, port: int) -> bool:
        """See domain.references.Ground."""
        return kernel.reaches(address, port)

    def listening(self, path: str) -> bool:
        """See domain.references.Ground."""
        return kernel.listening(path)

    def cpus(self) -> frozenset[int]:
        """See domain.references.Ground."""
        return kernel.cpus()

    def nodes(self) -> frozenset[int]:
        """See domain.references.Ground."""
        return kernel.nodes()

    def free_pages(self, size_kib: int, nodes: frozenset[int]) -> int | None:
        """See domain.references.Ground."""
        return kernel.free_pages(size_kib, nodes)

    def allocates_cache(self) -> bool:
        """See domain.references.Ground."""
        return kernel.allocates_cache()

    def user_of(self, path: str) -> str:
        """See domain.references.Ground."""
        return self._paths.get(path, "")

    def cid_user(self, cid: str) -> str:
        """See domain.references.Ground."""
        return next(
            (
                name
                for name, xml in self._running
                if any(c.get("address") == cid for c in xml.iterfind("devices/vsock/cid"))
            ),
            "",
        )

    def network(self, name: str) -> str:
        """See domain.references.Ground."""
        try:
            found = self._conn.networkLookupByName(name)
            return "active" if found.isActive() else "inactive"
        except libvirt.libvirtError as error:
            return _unless(error, libvirt.VIR_ERR_NO_NETWORK, "")

    def has_filter(self, name: str) -> bool:
        """See domain.references.Ground."""
        try:
            return self._conn.nwfilterLookupByName(name) is not None
        except libvirt.libvirtError as error:
            return bool(_unless(error, libvirt.VIR_ERR_NO_NWFILTER, ""))

    def has_secret(self, uuid: str) -> bool:
        """See domain.references.Ground."""
        try:
            return self._conn.secretLookupByUUIDString(uuid) is not None
        except libvirt.libvirtError as error:
            return bool(_unless(error, libvirt.VIR_ERR_NO_SECRET, ""))

    def security_models(self) -> frozenset[str]:
        """See domain.references.Ground."""
        host = parse_xml(self._conn.getCapabilities())
        return frozenset(model.text or "" for model in host.iterfind("host/secmodel/model"))

    @cached_property
    def _running(self) -> list[tuple[str, Element]]:
        """The running domains but the VM's own, in words and XML."""
        found = []
        for domain in self._conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            try:
                if domain.UUIDString() != self._besides:
                    found.append((f"VM {domain.name()}", parse_xml(domain.XMLDesc())))
            except libvirt.libvirtError as error:
                _unless(error, libvirt.VIR_ERR_NO_DOMAIN, "")  # it ended while we looked
        return found

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {claim.path: name for name, xml in self._running for claim in claims_of(xml, name, "")}


def _unless(error: libvirt.libvirtError, code: int, answer: str) -> str:
    """The answer where the error says just this; else the error."""
    if error.get_error_code() != code:
        raise error
    return answer
