"""The copies that libvirt and QEMU have: of a host's certificate, and of the list of revoked ones."""

from __future__ import annotations

from pathlib import Path

import structlog

from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.identity.revoked import RevokedFile
from sterna.adapters.libvirt.tls_files import close_connections, read_again
from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.trust.certificates import distinguished_name
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.revocation import RevokedList
from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

TAKING_S = 60.0
"""A list is taken. libvirtd has 5 s for each command, and one client is one or two of them."""


def renew_copies(folder: Path) -> None:
    """Write them again, where `sterna agent join --libvirt` has written them, and have libvirtd read them. May be
    repeated. Blocking. Raises SternaError where that fails: Unreachable where libvirtd has not read them."""
    files = PkiFiles(folder)
    if not files.wanted:
        return
    _write_again(files)
    if why := read_again():
        fix = (
            "restart libvirtd, while no guest of this host is in a migration: it reads them when it starts. "
            "Otherwise this is tried again every hour"
        )
        raise Unreachable(f"libvirtd has not read its certificates again: {why}", fix=fix)


def _write_again(files: PkiFiles) -> None:
    for path in files.renew():
        fix = "find out who has changed it; let the host join again with --libvirt --overwrite"
        log.warning("a certificate file that Sterna did not write is left unchanged", file=str(path), fix=fix)


class RevokedForLibvirt:
    """Implements ports.identity.RevokedHere: for libvirt and QEMU, where they have copies."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of this host's own certificate."""
        self._folder = folder

    async def take(self, given: RevokedList) -> int:
        """QEMU reads the list whenever a stream begins, libvirtd on request."""
        try:
            return await in_thread(lambda: self._take(given), name="sterna-revoked", limit_s=TAKING_S)
        except TimeoutError as error:
            fix = "check that libvirtd answers: virt-admin client-list libvirtd"
            raise Temporary(f"the list of revoked certificates is not in use yet: {error}", fix=fix) from error

    def _take(self, given: RevokedList) -> int:
        number = RevokedFile(self._folder).take(given.pem)
        files = PkiFiles(self._folder)
        if files.wanted:
            _write_again(files)
            names = [distinguished_name(Identity(kind=Kind.AGENT, name=name)) for name in given.removed]
            if why := read_again() or close_connections(names):
                raise Temporary(
                    f"libvirtd does not accept the list of revoked certificates: {why}",
                    fix="restart libvirtd while no migration from or to this host is running: it reads the list "
                    "at start",
                )
        return number
