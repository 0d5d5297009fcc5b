"""QEMU takes the certificates of our CA for its streams and NBD, and refuses a host that was removed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sterna.adapters.identity.authority import REVOKED, Authority
from sterna.adapters.identity.pki_files import PkiFiles
from tests.unit.adapters.identities import HOST1, HOST2, join


def credentials(authority_folder: Path, own: Path, pki: Path) -> Path:
    """The files as `sterna agent join --libvirt` writes them, and the list of revoked certificates."""
    PkiFiles(own).write(pki, None)
    shutil.copy(authority_folder / REVOKED, pki / "qemu" / "ca-crl.pem")
    return pki / "qemu"


def tls_object(folder: Path, endpoint: str) -> str:
    return f"tls-creds-x509,id=tls,dir={folder},endpoint={endpoint},verify-peer=on"


@contextmanager
def exported(folder: Path, disk: Path) -> Iterator[int]:
    """An NBD server as a destination has it; its port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    command = ["qemu-nbd", "--persistent", "--bind", "127.0.0.1", "--port", str(port), "--format", "raw"]
    command += ["--object", tls_object(folder, "server"), "--tls-creds", "tls", str(disk)]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def connects(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    image = f"driver=nbd,host=127.0.0.1,port={port},tls-creds=tls"
    command = ["qemu-img", "info", "--object", tls_object(folder, "client"), "--image-opts", image]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_two_hosts_speak_tls_until_one_is_removed(tmp_path: Path) -> None:
    if shutil.which("qemu-nbd") is None or shutil.which("qemu-img") is None:
        pytest.fail("qemu-nbd and qemu-img are not installed (Debian: apt-get install qemu-utils)")
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    one, two = tmp_path / "host1", tmp_path / "host2"
    join(authority, HOST1, one), join(authority, HOST2, two)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(2**20))
    client = credentials(tmp_path / "ca", two, tmp_path / "client")
    with exported(credentials(tmp_path / "ca", one, tmp_path / "server"), disk) as port:
        done = connects(client, port)
        assert done.returncode == 0, done.stderr
        assert "virtual size: 1 MiB" in done.stdout
    authority.remove(HOST2)
    with exported(credentials(tmp_path / "ca", one, tmp_path / "server"), disk) as port:
        assert connects(client, port).returncode != 0
