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
    DH = auto()
    """DH_PARAMETERS: the same on every host, and no secret."""


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
    PkiFile("qemu/dh-params.pem", Part.DH, 0o644),
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


DH_PARAMETERS = """\
-----BEGIN DH PARAMETERS-----
MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu
N///////////AgEC
-----END DH PARAMETERS-----
"""
"""The group ffdhe3072 of RFC 7919, appendix A.2. Without such a file each QEMU that a guest arrives in searches for
a prime of 2,048 bits before it listens (QEMU 10.0, `qcrypto_tls_creds_get_dh_params_file`)."""
