"""Permits for migrations: signed with a controller's key, and checked on the hosts with the CA's certificate."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from sterna.adapters.identity import private_files
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.revoked import RevokedFile
from sterna.adapters.identity.x509 import is_signed_by, read_certificates, read_key, seen
from sterna.domain.errors import SternaError, Temporary
from sterna.domain.journal import LONGEST_PERMIT, Migration
from sterna.domain.trust.identities import Kind, named_by
from sterna.domain.trust.permits import Permit, against, permit_for
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock

_PURPOSE = b"sterna permit 1\n"
"""Before what is signed: the same key signs requests for certificates."""
_LIMIT_S = 15.0
"""The files are on the host's own disk."""
_FIX = "check that the disk of the identity's folder answers"


class OwnPermits:
    """Implements ports.identity.Permits with this controller's own key."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """`folder`: of this controller's own certificate."""
        self._own, self._clock = OwnFiles(folder, Kind.CONTROLLER), clock
        self._check = PermitCheck(folder, clock)

    async def against(self, migration: Migration) -> str:
        """As `PermitCheck.against`, with the certificate of this controller's CA."""
        return await self._check.against(migration)

    async def issue(self, migration: Migration) -> str:
        """Raises BadRequest, NotFound or Temporary where this controller's key cannot be used."""
        permit = permit_for(migration, self._clock.now())
        try:
            return await in_thread(lambda: self._signed(permit), name="sterna-permits", limit_s=_LIMIT_S)
        except TimeoutError as error:
            raise Temporary(f"this controller's key cannot be read: {error}", fix=_FIX) from error

    def _signed(self, permit: Permit) -> str:
        pair = self._own.key_file.parent.resolve()  # of one pair, also during a renewal
        key = read_key(private_files.read(pair / "own.key", fix="", secret=True), str(pair))
        certificate = read_certificates(private_files.read(pair / "own.crt", fix=""), str(pair))[0]
        body = permit.model_dump_json().encode()
        signature = key.sign(_PURPOSE + body, ec.ECDSA(hashes.SHA256()))
        parts = (body, signature, certificate.public_bytes(Encoding.DER))
        return ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)


class PermitCheck:
    """Implements ports.identity.PermitCheck with the certificate of this host's CA."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """`folder`: of this host's own certificate."""
        self._own, self._revoked, self._clock = OwnFiles(folder), RevokedFile(folder), clock

    async def against(self, migration: Migration) -> str:
        """Why no controller has asked for it, as far as its permit says; '' where one has. Raises Temporary."""
        now = self._clock.now()
        try:
            return await in_thread(lambda: self._against(migration, now), name="sterna-permits", limit_s=_LIMIT_S)
        except (SternaError, TimeoutError) as error:
            raise Temporary(f"the permit cannot be checked: {error}", fix=_FIX) from error

    def _against(self, migration: Migration, now: datetime) -> str:
        if not migration.permit:
            return "it has no permit of a controller"
        read = _read(migration.permit)
        if read is None:
            return "its permit cannot be read"
        body, signature, certificate = read
        if why := self._not_a_controllers(certificate, now):
            return f"its permit is signed with a certificate that {why}"
        key = certificate.public_key()
        try:
            assert isinstance(key, ec.EllipticCurvePublicKey)  # the CA signs no others
            key.verify(signature, _PURPOSE + body, ec.ECDSA(hashes.SHA256()))
            permit = Permit.model_validate_json(body)
        except (InvalidSignature, ValidationError):
            return "its permit is not what was signed"
        return against(permit, migration, now)

    def _not_a_controllers(self, certificate: x509.Certificate, now: datetime) -> str:
        ca = read_certificates(self._own.ca(), "the CA's certificate")[0]
        if not is_signed_by(certificate, ca):
            return "is not of this host's CA"
        found = seen(certificate)
        if not any(who is not None and who.kind is Kind.CONTROLLER for who in map(named_by, found.dns_names)):
            return "is not a controller's"
        if not found.not_before <= now < found.not_after:
            return f"is valid from {found.not_before:%Y-%m-%d %H:%M} to {found.not_after:%Y-%m-%d %H:%M} UTC"
        return "was revoked" if self._revoked.has(certificate, ca) else ""


def _read(permit: str) -> tuple[bytes, bytes, x509.Certificate] | None:
    if len(permit) > LONGEST_PERMIT:
        return None
    try:
        body, signature, certificate = (base64.b64decode(p, b"-_", validate=True) for p in permit.split("."))
        return body, signature, x509.load_der_x509_certificate(certificate)
    except (ValueError, binascii.Error, x509.InvalidVersion, UnsupportedAlgorithm):
        return None
