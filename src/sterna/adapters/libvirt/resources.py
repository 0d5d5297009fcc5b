"""What this host has of what a VM's definition names (`domain.references.HostResources`). Blocking.

libvirt's part of it is here, the kernel's in `adapters/host/resources.py`. libvirt is asked first, in its own
thread: a look at a path or a name that hangs then holds up no other call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import libvirt

from sterna.adapters.host import resources as kernel
from sterna.adapters.libvirt.claims import claims_of
from sterna.adapters.libvirt.definitions import Patience, definitions
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.metadata import Element, parse_xml
from sterna.domain.references import Kind, Lan, Reference, Thing

_CLAIMED = {Kind.SOCKET, Kind.OUTPUT, Kind.ARGUMENT, Kind.CID}
"""What another running VM may have."""


@dataclass(frozen=True)
class Facts:
    """What libvirt says of the things that some references name."""

    users: Mapping[str, str] = field(default_factory=dict)
    """Path -> in words, the running VM that names it."""
    cids: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    lans: Mapping[tuple[str, str], Lan | None] = field(default_factory=dict)
    """By network and port group."""
    filters: frozenset[str] = frozenset()
    security_models: frozenset[str] = frozenset()


def ask(conn: Connect, references: Iterable[Reference], besides: str) -> Facts:
    """On behalf of the VM `besides`. Looks at no file: this is libvirt's thread. Raises libvirtError."""
    references = tuple(references)
    named: dict[Kind, set[str]] = {}
    for ref in references:
        named.setdefault(ref.kind, set()).add(ref.name)
    running = _running(conn, besides) if named.keys() & _CLAIMED else []
    cids = {c.get("address", ""): name for name, xml in running for c in xml.iterfind("devices/vsock/cid")}
    return Facts(
        users={claim.path: name for name, xml in running for claim in claims_of(xml, name, "")},
        cids=cids,
        networks={name: _network(conn, name) for name in named.get(Kind.NETWORK, ())},
        lans={(r.name, r.portgroup): lan_of(conn, r.name, r.portgroup) for r in references if r.lan is not None},
        filters=frozenset(name for name in named.get(Kind.FILTER, ()) if _has_filter(conn, name)),
        security_models=_security_models(conn) if Kind.SECURITY in named else frozenset(),
    )


class LibvirtHostResources:
    """What this host has: libvirt's part as it was read before, the rest as the kernel shows it now. A look may
    never end (a dead NFS server, a name that is not resolved): not to be made in libvirt's thread."""

    def __init__(self, host: str, address: str, facts: Facts | None = None, *, made: str = "") -> None:
        """`made`: the folder that P8 makes for the VM."""
        self._facts, self._made = facts or Facts(), made
        self.name, self.address = host or "this host", address

    def makes(self, folder: str) -> bool:
        """See domain.references.HostResources."""
        return bool(self._made) and folder == self._made

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        """See domain.references.HostResources."""
        return kernel.thing(path, digest=digest)

    def bindable(self, address: str, port: int = 0, *, udp: bool = False) -> str:
        """See domain.references.HostResources."""
        return kernel.bindable(address, port, udp=udp)

    def addresses_in(self, network: str) -> tuple[str, ...]:
        """See domain.references.HostResources."""
        return kernel.addresses_in(network)

    def reaches(self, address: str, port: int) -> bool:
        """See domain.references.HostResources."""
        return kernel.reaches(address, port)

    def listening(self, path: str) -> bool:
        """See domain.references.HostResources."""
        return kernel.listening(path)

    def cpus(self) -> frozenset[int]:
        """See domain.references.HostResources."""
        return kernel.cpus()

    def nodes(self) -> frozenset[int]:
        """See domain.references.HostResources."""
        return kernel.nodes()

    def free_pages(self, size_kib: int, nodes: frozenset[int]) -> int | None:
        """See domain.references.HostResources."""
        return kernel.free_pages(size_kib, nodes)

    def allocates_cache(self) -> bool:
        """See domain.references.HostResources."""
        return kernel.allocates_cache()

    def user_of(self, path: str) -> str:
        """See domain.references.HostResources."""
        return self._facts.users.get(path, "")

    def cid_user(self, cid: str) -> str:
        """See domain.references.HostResources."""
        return self._facts.cids.get(cid, "")

    def network(self, name: str) -> str:
        """See domain.references.HostResources."""
        return self._facts.networks[name]

    def lan(self, name: str, portgroup: str) -> Lan | None:
        """See domain.references.HostResources."""
        return self._facts.lans.get((name, portgroup))

    def has_filter(self, name: str) -> bool:
        """See domain.references.HostResources."""
        return name in self._facts.filters

    def security_models(self) -> frozenset[str]:
        """See domain.references.HostResources."""
        return self._facts.security_models


def _running(conn: Connect, besides: str) -> list[tuple[str, Element]]:
    """The running domains but the VM's own, in words and XML."""
    found, patience = [], Patience()
    for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        try:
            if domain.UUIDString() != besides:
                found.append((f"VM {domain.name()}", parse_xml(next(definitions(domain, patience)))))
        except libvirt.libvirtError as error:
            _unless(error, libvirt.VIR_ERR_NO_DOMAIN, "")  # it ended while we looked
    return found


def _network(conn: Connect, name: str) -> str:
    """Its state; '' where there is none of that name."""
    try:
        return "active" if conn.networkLookupByName(name).isActive() else "inactive"
    except libvirt.libvirtError as error:
        return _unless(error, libvirt.VIR_ERR_NO_NETWORK, "")


def lan_of(conn: Connect, name: str, portgroup: str) -> Lan | None:
    """Where that network leads a NIC; None where there is none of that name. Raises libvirtError."""
    try:
        network = parse_xml(conn.networkLookupByName(name).XMLDesc())
    except libvirt.libvirtError as error:
        _unless(error, libvirt.VIR_ERR_NO_NETWORK, "")
        return None
    groups = network.findall("portgroup")
    chosen = [g for g in groups if g.get("name") == portgroup] if portgroup else []
    places = [*(chosen or [g for g in groups if g.get("default") == "yes"]), network]  # the group's own comes first
    forward, port = network.find("forward"), _first(places, "virtualport")
    return Lan(
        forward="" if forward is None else forward.get("mode", "nat"),
        port="" if port is None else port.get("type", ""),
        vlan=_vlan_in_words(_first(places, "vlan")),
    )


def _vlan_in_words(vlan: Element | None) -> str:
    """`10`, `trunk 7,8`, `trunk 10 untagged,20` (10 is the native one)."""
    if vlan is None:
        return ""
    tags = [f"{tag.get('id', '')} {tag.get('nativeMode', '')}".strip() for tag in vlan.iterfind("tag")]
    return ("trunk " if vlan.get("trunk") == "yes" else "") + ",".join(tags)


def _first(places: Iterable[Element], tag: str) -> Element | None:
    return next((found for place in places if (found := place.find(tag)) is not None), None)


def _has_filter(conn: Connect, name: str) -> bool:
    try:
        return conn.nwfilterLookupByName(name) is not None
    except libvirt.libvirtError as error:
        return bool(_unless(error, libvirt.VIR_ERR_NO_NWFILTER, ""))


def _security_models(conn: Connect) -> frozenset[str]:
    host = parse_xml(conn.getCapabilities())
    return frozenset(model.text or "" for model in host.iterfind("host/secmodel/model"))


def _unless(error: libvirt.libvirtError, code: int, answer: str) -> str:
    """The answer where the error says just this; else the error."""
    if error.get_error_code() != code:
        raise error
    return answer
