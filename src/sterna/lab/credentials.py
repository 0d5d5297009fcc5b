"""What lab hosts show each other: certificates for QEMU's streams, and keys for SSH. Made again for each lab.

Both are in a host's `etc/libvirt`, which is its own `/etc/libvirt`: `pki` as libvirt wants it, `ssh` with all that
its sshd and its ssh need, so that nothing of the machine's own SSH is read or changed.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.places import second_address

PKI, SSH = "/etc/libvirt/pki", "/etc/libvirt/ssh"
"""Where a host sees them."""
DAYS = "30"
SSHD_CONFIG = f"""\
HostKey {SSH}/host_key
AuthorizedKeysFile {SSH}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
"""
SSH_CONFIG = f"""\
IdentityFile {SSH}/key
UserKnownHostsFile {SSH}/known_hosts
StrictHostKeyChecking yes
BatchMode yes
"""
SSH_COMMAND = f'#!/bin/sh\nexec ssh -F {SSH}/config "$@"\n'


def write_credentials(hosts: Mapping[str, tuple[str, Path]]) -> None:
    """Writes those of each host (name -> its address, its `etc/libvirt`). Raises LabError where a tool fails."""
    folders = list(hosts.values())
    authority = folders[0][1].parent / "authority"
    authority.mkdir(exist_ok=True)
    _run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=sterna-lab",
        "-keyout", authority / "key.pem", "-out", authority / "cert.pem", "-days", DAYS,
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    for name, (address, etc) in hosts.items():
        write_certificates(etc / "pki", authority, name, (address, second_address(address)))
    shutil.rmtree(authority)
    _write_ssh(hosts)


def write_certificates(pki: Path, authority: Path, name: str, addresses: tuple[str, ...]) -> None:
    """One host's certificate, for both ends of a stream, signed by `authority`."""
    pki.mkdir(exist_ok=True)
    names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
    _run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name}",
        "-CA", authority / "cert.pem", "-CAkey", authority / "key.pem", "-days", DAYS,
        "-keyout", pki / "server-key.pem", "-out", pki / "server-cert.pem",
        "-addext", f"subjectAltName={names}",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-addext", "keyUsage=critical,digitalSignature,keyEncipherment",
        "-addext", "extendedKeyUsage=serverAuth,clientAuth",
    )  # fmt: skip
    shutil.copy(authority / "cert.pem", pki / "ca-cert.pem")
    shutil.copy(pki / "server-cert.pem", pki / "client-cert.pem")
    shutil.copy(pki / "server-key.pem", pki / "client-key.pem")


def _write_ssh(hosts: Mapping[str, tuple[str, Path]]) -> None:
    """Each host's root may log in at each other's, and knows its key."""
    for _, etc in hosts.values():
        (etc / "ssh").mkdir(exist_ok=True)
        for key in ("host_key", "key"):
            _run("ssh-keygen -q -t ed25519 -N", "", "-f", etc / "ssh" / key)
    admitted = "".join((etc / "ssh/key.pub").read_text() for _, etc in hosts.values())
    known = "".join(f"{address} {(etc / 'ssh/host_key.pub').read_text()}" for address, etc in hosts.values())
    for _, etc in hosts.values():
        files = {"authorized_keys": admitted, "known_hosts": known, "sshd_config": SSHD_CONFIG}
        for name, text in (files | {"config": SSH_CONFIG, "ssh": SSH_COMMAND}).items():
            (etc / "ssh" / name).write_text(text)
        (etc / "ssh/ssh").chmod(0o755)


def _run(words: str, *more: str | Path) -> None:
    argv = [*words.split(), *map(str, more)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise LabError(f"{argv[0]} failed: {done.stderr.strip()}")
