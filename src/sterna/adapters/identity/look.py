"""Files with a key and a certificate, of whatever CA: do they serve, and for how long?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sterna.adapters.identity import private_files
from sterna.adapters.identity.x509 import is_signed_by, read_certificates, seen
from sterna.domain.errors import BadRequest
from sterna.domain.trust.certificates import faults
from sterna.domain.trust.identities import Identity

_FIX = "see [identity] in the settings"


def validity_of(cert_file: Path) -> tuple[datetime, datetime]:
    """From when until when the certificate in this file is valid. Raises NotFound or BadRequest."""
    found = seen(read_certificates(private_files.read(cert_file, fix=_FIX), str(cert_file))[0])
    return found.not_before, found.not_after


def faults_of(
    ca_file: Path, cert_file: Path, key_file: Path, who: Identity | None, addresses: Iterable[str], now: datetime
) -> tuple[str, ...]:
    """Each reason why they do not serve; empty where they do. `who`: None for a certificate of another CA, which
    has names of its own.

    Raises NotFound or BadRequest for a file that cannot be read, and for a key that others may read.
    """
    authorities = read_certificates(private_files.read(ca_file, fix=_FIX), str(ca_file))
    chain = read_certificates(private_files.read(cert_file, fix=_FIX), str(cert_file))
    key = private_files.read(key_file, fix=_FIX, secret=True)
    certificate, form = chain[0], serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        own = serialization.load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadRequest(f"{key_file} has no private key without a passphrase", fix=_FIX) from error
    found = list(faults(seen(certificate), who, now, addresses=addresses))
    der = serialization.Encoding.DER
    if own.public_bytes(der, form) != certificate.public_key().public_bytes(der, form):
        found.append(f"{key_file} is the key of another certificate")
    if len(chain) == 1 and not any(is_signed_by(certificate, ca) for ca in authorities):
        found.append(f"no CA in {ca_file} signed it")
    return tuple(found)
