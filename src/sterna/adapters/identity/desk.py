"""The CA's desk: tokens and certificates are exchanged for new certificates. It needs the CA's folder."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sterna.adapters.identity.authority import Authority, Signed
from sterna.adapters.identity.x509 import is_signed_by, read_certificates
from sterna.domain.errors import BadRequest
from sterna.domain.trust.joining import JoinAnswer, JoinRequest, RenewalRequest
from sterna.kit.threads import in_thread

_LIMIT_S = 20.0
"""Of one question: the CA's folder is on a local disk."""


class LocalDesk:
    """Implements ports.identity.JoinDesk on the machine that has the CA."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def ca(self) -> str:
        """The CA's certificate."""
        return self._authority.pem.decode()

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        """The first certificate, for a token."""
        made = await in_thread(
            lambda: self._authority.redeem(request.host, request.secret, request.request), limit_s=_LIMIT_S
        )
        return self._answer(made)

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        """The next certificate, for whoever has the key of the present one."""
        made = await in_thread(lambda: self._renewed(request), limit_s=_LIMIT_S)
        return self._answer(made)

    def _renewed(self, request: RenewalRequest) -> Signed:
        present = read_certificates(request.certificate, "the present certificate")[0]
        key = present.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not is_signed_by(present, self._authority.certificate):
            raise BadRequest("the present certificate is not of this CA", fix="let the host join anew")
        try:
            signature = base64.b64decode(request.signature, validate=True)
            key.verify(signature, request.request.encode(), ec.ECDSA(hashes.SHA256()))
        except (binascii.Error, ValueError, InvalidSignature):
            raise BadRequest(
                "the request is not signed with the present key", fix="let the host join anew"
            ) from None
        return self._authority.renew(f"{present.serial_number:x}", request.request)

    def _answer(self, made: Signed) -> JoinAnswer:
        return JoinAnswer(certificate=made.pem.decode(), ca=self._authority.pem.decode())
