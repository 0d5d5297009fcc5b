"""The CA's desk: tokens and certificates are exchanged for new certificates. It needs the CA's folder."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sterna.adapters.identity.authority import Authority, Signed
from sterna.adapters.identity.private_files import Busy
from sterna.adapters.identity.x509 import is_signed_by, read_certificates, read_request
from sterna.domain.errors import BadRequest, NotFound, Temporary
from sterna.domain.trust.identities import Kind, identity
from sterna.domain.trust.joining import JoinAnswer, JoinRequest, RenewalRequest
from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

T = TypeVar("T")

_LIMIT_S = 20.0
"""Of one question: the CA's folder is on a local disk."""
_TURN_S = 20.0
"""Of waiting for those before. A host leaves after 60 s."""
_BUSY = "the CA is busy: too many ask at once"


class LocalDesk:
    """Implements ports.identity.CertificateIssuer on the machine that has the CA. A request takes milliseconds, and
    is handled after those before it. Who calls it bounds how many wait."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._turn = asyncio.Semaphore(1)

    async def ca(self) -> str:
        """The CA's certificate."""
        return self._authority.pem.decode()

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        """The first certificate, for a token."""
        identity(Kind.AGENT, request.host)
        return await self._asked(
            lambda: read_request(request.request),
            lambda: self._authority.redeem(request.host, request.secret, request.request),
        )

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        """The next certificate, for the holder of the present one's key."""
        return await self._asked(
            lambda: self._proven(request), lambda: self._authority.renew(self._proven(request), request.request)
        )

    async def _asked(self, look: Callable[[], object], act: Callable[[], Signed]) -> JoinAnswer:
        """`look` raises what is wrong with the request. What `act` raises besides Conflict is a fault of the CA: it
        is logged for the operator, and not sent to the host."""
        try:
            async with asyncio.timeout(_TURN_S) as turn, self._turn:
                turn.reschedule(None)  # what it does now has a limit of its own
                made = await self._in_thread(lambda: self._looked_and_made(look, act))
        except TimeoutError as error:
            raise Temporary(_BUSY, fix="try again in a moment", delay_s=1) from error
        holder = f"{made.who.kind.value}:{made.who.name}"
        return JoinAnswer(certificate=made.pem.decode(), ca=self._authority.pem.decode(), holder=holder)

    async def _in_thread(self, act: Callable[[], T]) -> T:
        try:
            return await in_thread(act, name="sterna-ca", limit_s=_LIMIT_S)
        except TimeoutError as error:
            raise _away(str(error)) from error

    def _looked_and_made(self, look: Callable[[], object], act: Callable[[], Signed]) -> Signed:
        look()
        return self._of_the_ca(act)

    def _of_the_ca(self, act: Callable[[], Signed]) -> Signed:
        try:
            return act()
        except Busy as error:
            raise Temporary(_BUSY, fix=error.fix, delay_s=1) from error
        except (BadRequest, NotFound) as error:
            raise _away(error.message, error.fix) from error

    def _proven(self, request: RenewalRequest) -> str:
        """The serial number of the certificate that the sender has the key of. Raises BadRequest."""
        present = read_certificates(request.certificate, "the present certificate")[0]
        fix = "let the host join again"
        if not is_signed_by(present, self._authority.certificate):
            raise BadRequest("the present certificate is not of this CA", fix=fix)
        read_request(request.request)
        key = present.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # the CA signs no others
        try:
            signature = base64.b64decode(request.signature, validate=True)
            key.verify(signature, request.request.encode(), ec.ECDSA(hashes.SHA256()))
        except (binascii.Error, ValueError, InvalidSignature):
            raise BadRequest("the request is not signed with the present key", fix=fix) from None
        return f"{present.serial_number:x}"


def _away(why: str, fix: str = "") -> Temporary:
    log.error("the CA cannot be used now: hosts can neither join nor renew", why=why, fix=fix)
    return Temporary("the CA cannot be used now", fix="see the log of the controller that has the CA")
