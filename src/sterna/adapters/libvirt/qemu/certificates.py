"""Where libvirt takes the certificates of QEMU's migration stream from, as `qemu.conf` says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, settings_of

_OWN, _COMMON = Path("/etc/pki/libvirt-migrate"), Path("/etc/pki/qemu")
"""libvirt's defaults, where `qemu.conf` names none: the first that is there."""


@dataclass(frozen=True)
class Certificates:
    """One host's."""

    folder: Path
    verify: bool
    """The receiver asks the sender for a certificate, too."""

    @property
    def needed(self) -> tuple[str, ...]:
        """The files that must be there."""
        client = ("client-cert.pem", "client-key.pem") if self.verify else ()
        return ("ca-cert.pem", "server-cert.pem", "server-key.pem", *client)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those that cannot be read."""
        return tuple(name for name in self.needed if not os.access(self.folder / name, os.R_OK))


def of_migration(conf: Path = QEMU_CONF) -> Certificates:
    """As libvirt would find them."""
    settings = settings_of(conf)
    common = settings.get("default_tls_x509_cert_dir") or str(_COMMON)
    own = settings.get("migrate_tls_x509_cert_dir") or (str(_OWN) if _OWN.is_dir() else common)
    verify = settings.get("migrate_tls_x509_verify", settings.get("default_tls_x509_verify", "1"))
    return Certificates(folder=Path(own), verify=verify != "0")
