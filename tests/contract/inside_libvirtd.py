"""Run by `test_libvirtd_tls.py` in namespaces of its own: a libvirtd with TLS on a host's files, and its clients.

Prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.bootstrap.pki import RevokedForLibvirt
from sterna.domain.trust.pki import ALLOWED
from tests.unit.adapters.identities import HOST2

OWN_FOLDERS = ("/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
CONF = f"""\
listen_tls = 1
listen_addr = "127.0.0.1"
auth_tls = "none"
auth_unix_rw = "none"
tls_allowed_dn_list = ["{ALLOWED}"]
"""
SOCKET = Path("/run/libvirt/libvirt-admin-sock")


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)


def make_folders() -> None:
    """/run, /etc and libvirt's own are this namespace's."""
    run("mount", "--make-rprivate", "/")
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "none", "/run")
    shutil.copytree("/etc", "/run/etc", symlinks=True, ignore_dangling_symlinks=True)
    run("mount", "--bind", "/run/etc", "/etc")
    for folder in OWN_FOLDERS:
        run("mount", "-t", "tmpfs", "none", folder)
    Path("/etc/libvirt/libvirtd.conf").write_text(CONF)
    shutil.rmtree("/etc/pki", ignore_errors=True)


@contextmanager
def libvirtd() -> Iterator[None]:
    process = subprocess.Popen(["libvirtd", "--listen"], stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 120
        while not SOCKET.exists():
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def address_of(folder: Path) -> str:
    """Of that libvirtd, with the certificate in this folder."""
    client = Path("/run/clients") / folder.name
    client.mkdir(parents=True, exist_ok=True)
    for name, source in (("cacert", "ca.crt"), ("clientcert", "own.crt"), ("clientkey", "own.key")):
        shutil.copy(folder / "current" / source, client / f"{name}.pem")
    return f"test+tls://127.0.0.1/default?pkipath={client}"


def is_let_in(folder: Path) -> bool:
    command = ["virsh", "--connect", address_of(folder), "hostname"]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


@contextmanager
def connected(folder: Path) -> Iterator[None]:
    """A client that stays until it is sent away."""
    command, pipe = ["virsh", "--connect", address_of(folder)], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 60
        while folder.name not in clients():
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def clients() -> list[str]:
    """The names of those that are connected."""
    found = []
    for line in asked("client-list", "libvirtd").splitlines():
        if " tls " in line:
            found += re.findall(r"CN=(\w+)", asked("client-info", "libvirtd", line.split()[0]))
    return found


def asked(*words: str) -> str:
    command = ["virt-admin", "--connect", "libvirtd:///system", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def look(folder: Path) -> dict[str, object]:
    one, two, three, controller = (folder / name for name in ("host1", "host2", "host3", "c1"))
    PkiFiles(one).write(Path("/etc/pki"), None)
    found: dict[str, object] = {}
    with libvirtd():
        found |= {"host2 is let in": is_let_in(two), "a controller is let in": is_let_in(controller)}
        with connected(two), connected(three):
            found["connected"] = sorted(clients())
            authority = Authority.open(folder / "ca")
            authority.remove(HOST2)
            given = authority.revoked_in(authority.register())
            assert given is not None
            asyncio.run(RevokedForLibvirt(one).take(given))
            found["still connected"] = clients()
        found |= {"host2 is let in again": is_let_in(two), "host3 is let in": is_let_in(three)}
    with libvirtd():
        found["host2 is let in after a restart"] = is_let_in(two)
    return found


if __name__ == "__main__":
    make_folders()
    print(json.dumps(look(Path(sys.argv[1]))))
