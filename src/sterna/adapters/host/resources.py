"""`domain.references.HostResources` by the kernel of this host: files, sockets, addresses, CPUs and pages.

Blocking; nothing is changed: an address is tried by binding a socket to it that never listens. What libvirt knows
is added by `adapters/libvirt/resources.py`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from sterna.adapters.host.addresses import interface_addresses
from sterna.domain.references import Form, Thing, numbers
from sterna.kit.contents import file_digest

LONGEST_BYTES = 512 << 20
"""A longer file is not read: its inode must prove that it is the other host's as well."""
_CONNECT_S = 2.0
_MOST_ADDRESSES = 4
"""Of one name, that are tried."""
_ACCEPTING = 0x10000
"""`__SO_ACCEPTCON` in /proc/net/unix."""
_BINDING = threading.Lock()
"""Two looks at one port of UDP must not take each other for a program that has it."""
_PIPE_ENDS = (".in", ".out")
_SYS = Path("/sys/devices/system")
_FORMS = (
    (stat.S_ISREG, Form.FILE),
    (stat.S_ISDIR, Form.FOLDER),
    (stat.S_ISCHR, Form.DEVICE),
    (stat.S_ISBLK, Form.BLOCK),
    (stat.S_ISSOCK, Form.SOCKET),
    (stat.S_ISFIFO, Form.PIPE),
)


def thing(path: str, *, digest: bool = False) -> Thing:
    """What a path leads to, links followed; of a pipe's two ends, the first."""
    folder = os.path.isdir(os.path.dirname(path) or "/")
    for name in (path, *(path + end for end in _PIPE_ENDS)):
        try:
            found = os.stat(name)
        except OSError:
            continue
        form = next((form for is_it, form in _FORMS if is_it(found.st_mode)), Form.NOTHING)
        if form is not Form.FILE:
            return Thing(form=form, folder=folder)
        content = _digest(name) if digest else None
        facts = {"size": found.st_size, "inode": found.st_ino, "modified_ns": found.st_mtime_ns}
        return Thing(form=form, folder=folder, digest=content, **facts)
    return Thing(folder=folder)


def _digest(path: str) -> str | None:
    """SHA-256 of a file; read once as long as it stays as it is. None where it is too long or cannot be read."""
    try:
        return file_digest(path, most_bytes=LONGEST_BYTES)
    except OSError:
        return None


def bindable(address: str, port: int = 0, *, udp: bool = False) -> str:
    """See domain.references.HostResources.bindable. QEMU takes the first form of a name that works."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    try:
        forms = socket.getaddrinfo(address.strip("[]") or None, port, type=kind, flags=socket.AI_PASSIVE)
    except OSError:
        return "address"
    answers = {_try(family, where, kind) for family, _, _, _, where in forms}
    return "" if "" in answers else "port" if "port" in answers else "address"


def _try(family: int, where: tuple[object, ...], kind: int) -> str:
    with _BINDING, socket.socket(family, kind) as one:
        if kind == socket.SOCK_STREAM:
            one.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as QEMU does: what is closing does not count
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            one.bind(where)
        except OSError as error:
            return "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "address"
    return ""


def addresses_in(network: str) -> tuple[str, ...]:
    """This host's addresses in a network written `10.73.0.0/24`, in their order."""
    try:
        wanted = ipaddress.ip_network(network)
    except ValueError:
        return ()
    found = {each.ip for each in interface_addresses() if each.network == wanted}
    return tuple(str(ip) for ip in sorted(found, key=int))


def network_of(address: str) -> str:
    """The network of one of this host's addresses; '' for another's, and for one that any host has."""
    for each in interface_addresses():
        if str(each.ip) == address.strip("[]") and not each.ip.is_loopback and not each.ip.is_link_local:
            return str(each.network)
    return ""


def reaches(address: str, port: int) -> bool:
    """Does a program listen there? On this host itself the kernel's table shows it, without a connection."""
    try:
        forms = socket.getaddrinfo(address.strip("[]") or "localhost", port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    ips = list(dict.fromkeys(str(where[0]) for _, _, _, _, where in forms))[:_MOST_ADDRESSES]
    return any(_connects(ip, port) for ip in ips)


def _connects(ip: str, port: int) -> bool:
    try:
        with socket.create_connection((ip, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def listening(path: str) -> bool:
    """Does a program accept connections at this socket? Of others that are called otherwise nothing is asked."""
    real = os.path.realpath(path)
    for number, name in _unix_sockets():
        alike = name in (path, real) or os.path.basename(name) == os.path.basename(real)
        if number & _ACCEPTING and alike and (name == path or os.path.realpath(name) == real):
            return os.path.exists(path)
    return False


def _unix_sockets() -> Iterator[tuple[int, str]]:
    """Flags and path of each."""
    with open("/proc/net/unix") as lines:
        for line in lines:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7].startswith("/"):
                yield int(fields[3], 16), fields[7].rstrip("\n")


def cpus() -> frozenset[int]:
    """CPUs that are online."""
    return _set(_SYS / "cpu/online")


def nodes() -> frozenset[int]:
    """NUMA nodes that are online; a kernel without NUMA has one."""
    return _set(_SYS / "node/online") or frozenset({0})


def _set(path: Path) -> frozenset[int]:
    try:
        text = path.read_text().strip()
        return numbers(text) if text else frozenset()
    except (OSError, ValueError):
        return frozenset()


def free_pages(size_kib: int, on: frozenset[int]) -> int | None:
    """See domain.references.HostResources.free_pages. Those promised to a mapping are not free."""
    if size_kib not in _mounted_kib():
        return None
    pools = [_SYS / f"node/node{node}/hugepages" for node in sorted(on)] or [Path("/sys/kernel/mm/hugepages")]
    free = sum(_number(pool / f"hugepages-{size_kib}kB/free_hugepages") for pool in pools)
    promised = _number(Path(f"/sys/kernel/mm/hugepages/hugepages-{size_kib}kB/resv_hugepages"))
    return max(0, free - promised)


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _mounted_kib() -> set[int]:
    """The page sizes for which a hugetlbfs is mounted."""
    found = set()
    for line in Path("/proc/mounts").read_text().splitlines():
        _, _, kind, options, *_ = line.split()
        if kind == "hugetlbfs":
            size = re.search(r"pagesize=(\d+)([KMG])", options)
            found.add(int(size[1]) << {"K": 0, "M": 10, "G": 20}[size[2]] if size else 2048)
    return found


def allocates_cache() -> bool:
    """Is resctrl mounted?"""
    return os.path.exists("/sys/fs/resctrl/schemata")
