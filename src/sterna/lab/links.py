"""Break one link of a lab, and mend it: cut (both ends hear of it) or drop (packets are swallowed silently).

Called by fault tests. Done with the kernel's routing rules and socket destruction (`ip rule`, `ss -K`), so that it
touches one port between two addresses and needs no firewall: the rest of the network goes on.
"""

import re
from dataclasses import dataclass

from sterna.lab.host import LabHost
from sterna.lab.lab import Lab
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import ISCSI_PORTAL_PORT, LAB_ADDRESS, second_address

BUS_PORT = 4222
LIBVIRT_PORTS = {True: 16509, False: 16514}
"""libvirtd's, where a host is insecure, and where it is not."""
FIRST_STREAM_PORT, LAST_STREAM_PORT = 49152, 49215
"""libvirt's own range for memory and disks; `migration_port_min` and `_max` of qemu.conf."""
RULES = 10
"""The preference of the rules made here; the table of local addresses is moved behind them."""
LOCAL = 100


@dataclass(frozen=True)
class End:
    """One side of a link."""

    inside: Namespaces
    address: str
    device: str


@dataclass(frozen=True)
class Link:
    """TCP from a client to some ports of a server."""

    client: End
    server: End
    first_port: int
    last_port: int

    @property
    def ports(self) -> str:
        """As `ip rule` takes them."""
        return str(self.first_port) if self.first_port == self.last_port else f"{self.first_port}-{self.last_port}"

    def sockets(self, which: str) -> str:
        """`ss`'s filter for the link's sockets; `which` is the server's port as that end sees it: dport, sport."""
        return f"{which} >= :{self.first_port} and {which} <= :{self.last_port}"


def stream_link(source: LabHost, destination: LabHost) -> Link:
    """Memory and disks, QEMU to QEMU."""
    return Link(_end(source), _end(destination), FIRST_STREAM_PORT, LAST_STREAM_PORT)


def second_stream_link(source: LabHost, destination: LabHost) -> Link:
    """The same between the hosts' second addresses, where a stream that broke in post-copy may be joined again."""
    client, server = (End(host.inside, second_address(host.address), "mgmt0") for host in (source, destination))
    return Link(client, server, FIRST_STREAM_PORT, LAST_STREAM_PORT)


def control_link(source: LabHost, destination: LabHost) -> Link:
    """libvirtd to libvirtd."""
    port = LIBVIRT_PORTS[destination.insecure]
    return Link(_end(source), _end(destination), port, port)


def bus_link(lab: Lab, host: LabHost) -> Link:
    """A host's agent to the bus."""
    return Link(_end(host), _lab_end(lab), BUS_PORT, BUS_PORT)


def storage_link(lab: Lab, host: LabHost) -> Link:
    """A host's iSCSI initiators to the portal."""
    return Link(_end(host), _lab_end(lab), ISCSI_PORTAL_PORT, ISCSI_PORTAL_PORT)


def drop(link: Link) -> None:
    """Both ends drop what comes from the other. Connections look alive. Raises LabError."""
    _swallow(link.server, link.client, f"dport {link.ports}")
    drop_replies(link)


def drop_replies(link: Link) -> None:
    """The client swallows what the server sends: requests are obeyed, answers do not arrive. Raises LabError."""
    _swallow(link.client, link.server, f"sport {link.ports}")


def cut(link: Link) -> None:
    """Open connections are reset at both ends, new ones are refused as unreachable at once. Raises LabError."""
    ends = ((link.client, link.server, "dport"), (link.server, link.client, "sport"))
    for end, other, port in ends:  # resets first: the rules would hold them back
        kill = f"ss -K dst {other.address} '( {link.sockets(port)} )' >/dev/null"
        match = f"to {other.address} ipproto tcp {port} {link.ports}"
        _shell(end, [*_LOCAL_BEHIND, kill, *_rule(f"{match} unreachable"), kill])
    for end, other, port in ends:  # what was opened again before the other end had its rule
        _shell(end, [f"ss -K dst {other.address} '( {link.sockets(port)} )' >/dev/null"])


def mend(link: Link) -> None:
    """Take away every rule made here at both ends of the link; none is not an error."""
    for end in (link.client, link.server):
        _shell(end, [f"while ip rule del pref {RULES} 2>/dev/null; do :; done"])


def retransmissions(link: Link) -> int:
    """How often the kernel at either end has by now repeated a segment in vain, the worst of the link's sockets."""
    found = [0]
    for end, other, port in ((link.client, link.server, "dport"), (link.server, link.client, "sport")):
        text = end.inside.run(["ss", "-Htno", "dst", other.address, f"( {link.sockets(port)} )"]).stdout
        found += [int(number) for number in re.findall(r"timer:\(on,[^,]*,(\d+)\)", text)]
    return max(found)


_LOCAL_BEHIND = (
    # Rules before the table of local addresses are the only ones that incoming packets meet.
    f"if ip rule show pref 0 | grep -q local; then ip rule add pref {LOCAL} lookup local; ip rule del pref 0; fi",
)


def _swallow(end: End, other: End, port: str) -> None:
    match = f"iif {end.device} from {other.address} ipproto tcp {port}"
    _shell(end, [*_LOCAL_BEHIND, *_rule(f"{match} blackhole")])


def _rule(what: str) -> list[str]:
    """Lines of a shell after which there is exactly one rule that says so: the same link may be broken again."""
    return [f"ip rule del pref {RULES} {what} 2>/dev/null || :", f"ip rule add pref {RULES} {what}"]


def _shell(end: End, lines: list[str]) -> None:
    end.inside.run(["sh", "-ec", "\n".join(lines)])


def _end(host: LabHost) -> End:
    return End(host.inside, host.address, "mgmt0")


def _lab_end(lab: Lab) -> End:
    return End(lab.outer, LAB_ADDRESS, "mgmt")
