"""Sealing with HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305), as `cryptography` has it. See ADR 13."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from sterna.domain.errors import BadRequest, Temporary

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PURPOSE = "sterna secret 1 "


class HpkeSealing:
    """`ports.secrets.Sealing`. One per process: the private key is nowhere but in its memory."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        """32 bytes in base64."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def seal(self, value: bytes, *, key: str, about: str) -> str:
        """See `ports.secrets.Sealing.seal`."""
        try:
            public = X25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        except (ValueError, binascii.Error):
            raise BadRequest("the other agent sent an invalid public key") from None
        return base64.b64encode(_SUITE.encrypt(value, public, info=_info(about))).decode()

    def open(self, sealed: str, *, about: str) -> bytes:
        """See `ports.secrets.Sealing.open`."""
        try:
            return bytes(_SUITE.decrypt(base64.b64decode(sealed), self._private, info=_info(about)))
        except (ValueError, binascii.Error, InvalidTag):
            # `from None`: nothing of what came along may reach a log
            raise Temporary("a secret was sealed for an earlier life of this agent: send it again") from None


def _info(about: str) -> bytes:
    return (_PURPOSE + about).encode()
