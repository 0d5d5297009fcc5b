"""The list of revoked certificates, beside this host's own certificate."""

from __future__ import annotations

from pathlib import Path

import structlog
from cryptography.x509 import Certificate

from sterna.adapters.identity import private_files
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import read_certificates, read_list
from sterna.domain.errors import BadRequest, Conflict, NotFound

log = structlog.get_logger(__name__)

REVOKED = "revoked.crl"


class RevokedFile:
    """The one in this folder. Methods raise BadRequest, Conflict or NotFound, each with what would fix it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of this host's own certificate."""
        self._folder, self._own = folder, OwnFiles(folder)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._folder / REVOKED

    def take(self, pem: str) -> int:
        """Keep this list, if it is not here yet; its number. Raises Conflict for one that is older than the one
        that is here: it would let removed hosts in again."""
        ca = read_certificates(self._own.ca(), "the CA's certificate")[0]
        number, _ = read_list(pem, ca)
        with private_files.alone(self._folder):
            known = self._known(ca)
            if number < known:
                fix = "check whether the CA was restored from a backup; its next removal has a newer list"
                raise Conflict(f"list {number} of revoked certificates is older than list {known}", fix=fix)
            if number > known:
                private_files.write(self.path, pem.encode(), 0o644)
        return number

    def has(self, certificate: Certificate, ca: Certificate) -> bool:
        """Is this certificate of the CA on it? Raises BadRequest where the list that is here cannot be read."""
        try:
            _, listed = read_list(private_files.read(self.path, fix=""), ca)
        except NotFound:
            return False
        return listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None

    def _known(self, ca: Certificate) -> int:
        """The number of the list that is here; 0 for none of this CA."""
        try:
            return read_list(private_files.read(self.path, fix=""), ca)[0]
        except NotFound:
            return 0
        except BadRequest as error:
            log.warning("the list of revoked certificates is replaced", file=str(self.path), why=error.message)
            return 0
