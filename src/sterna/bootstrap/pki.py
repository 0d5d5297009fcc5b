"""After a renewal: the copies of a host's certificate that libvirt and QEMU have."""

from __future__ import annotations

from pathlib import Path

import structlog

from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.libvirt.tls_files import read_again
from sterna.domain.errors import Unreachable

log = structlog.get_logger(__name__)


def renew_copies(folder: Path) -> None:
    """Write them again, where `sterna agent join --libvirt` has written them, and have libvirtd read them. May be
    repeated. Blocking. Raises SternaError where that fails: Unreachable where libvirtd has not read them."""
    files = PkiFiles(folder)
    if not files.wanted:
        return
    for path in files.renew():
        fix = "see who has changed it; let the host join again with --libvirt --overwrite"
        log.warning("a file of somebody else's keeps its certificate", file=str(path), fix=fix)
    if why := read_again():
        fix = "restart libvirtd: it reads them when it starts. Else this is tried again every hour"
        raise Unreachable(f"libvirtd has not read its certificates again: {why}", fix=fix)
