"""What lab hosts show each other: their certificates, and keys for SSH, made again for each lab.

Both are in a host's `etc/libvirt`, which is its own `/etc/libvirt`: `pki` as libvirt wants it, `ssh` with all that
its sshd and its ssh need, so that nothing of the machine's own SSH is read or changed.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from sterna.domain.trust.pki import DH_PARAMETERS
from sterna.lab.errors import LabError
from sterna.lab.places import IDENTITY

PKI, SSH = "/etc/libvirt/pki", "/etc/libvirt/ssh"
"""Where a host sees them."""
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
    for _, etc in hosts.values():
        link_certificates(etc / "pki", IDENTITY)
    _write_ssh(hosts)


def link_certificates(pki: Path, identity: str | Path) -> None:
    """Makes `pki`: the key and certificate of an `identity` folder by the names that QEMU looks for, and by those
    that libvirt does; for both ends of a connection."""
    pki.mkdir(exist_ok=True)
    for ca in ("ca-cert.pem", "cacert.pem"):
        (pki / ca).symlink_to(f"{identity}/current/ca.crt")
    for end in ("server", "client"):
        for dash in ("-", ""):
            (pki / f"{end}{dash}cert.pem").symlink_to(f"{identity}/current/own.crt")
            (pki / f"{end}{dash}key.pem").symlink_to(f"{identity}/current/own.key")
    (pki / "dh-params.pem").write_text(DH_PARAMETERS)


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
