"""Which files libvirt and QEMU take a host's certificate from, where their settings name no others. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from sterna.domain.trust.certificates import ORGANISATION, UNITS
from sterna.domain.trust.identities import Kind

PKI = "/etc/pki"
ASIDE = ".before-sterna"
"""A file that is replaced is kept beside, with this at the end of its name."""

ALLOWED = f"O={ORGANISATION},OU={UNITS[Kind.AGENT]},CN=*"
"""For `tls_allowed_dn_list` of libvirtd: hosts of Sterna's own CA, no controllers. `*` stands for any name."""


class Part(Enum):
    """What a file is a copy of."""

    CA = auto()
    CERTIFICATE = auto()
    KEY = auto()
    REVOKED = auto()
    """The list of revoked certificates."""


class PkiFile(NamedTuple):
    """One of them."""

    path: str
    """Below PKI."""
    part: Part
    mode: int


FOLDERS = {"CA": 0o755, "libvirt": 0o755, "libvirt/private": 0o700, "qemu": 0o755}
"""Below PKI, with the mode of one that is made."""
FILES = (
    PkiFile("CA/cacert.pem", Part.CA, 0o644),
    PkiFile("libvirt/private/serverkey.pem", Part.KEY, 0o600),
    PkiFile("libvirt/servercert.pem", Part.CERTIFICATE, 0o644),
    PkiFile("libvirt/private/clientkey.pem", Part.KEY, 0o600),
    PkiFile("libvirt/clientcert.pem", Part.CERTIFICATE, 0o644),
    PkiFile("qemu/ca-cert.pem", Part.CA, 0o644),
    PkiFile("qemu/server-key.pem", Part.KEY, 0o640),
    PkiFile("qemu/server-cert.pem", Part.CERTIFICATE, 0o644),
    PkiFile("qemu/client-key.pem", Part.KEY, 0o640),
    PkiFile("qemu/client-cert.pem", Part.CERTIFICATE, 0o644),
)
"""In the order in which they are written. A certificate right behind its key: who reads them in between is refused
by the other side, and tries again. libvirtd is root's; QEMU is not, and reads its keys by its group."""

REVOKED_FILES = (
    PkiFile("CA/cacrl.pem", Part.REVOKED, 0o644),
    PkiFile("qemu/ca-crl.pem", Part.REVOKED, 0o644),
)
"""Written once there is such a list."""


def mode_of(file: PkiFile, *, grouped: bool) -> int:
    """Its mode; a key that no group is to read is its owner's alone."""
    return file.mode if grouped or file.part is not Part.KEY else 0o600
