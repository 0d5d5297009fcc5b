"""`/v1/ca`, `/v1/join`, `/v1/renewals`: where hosts get their certificates. Each request carries its own proof.
Where this controller has no CA, these routes answer nothing. A host that joins has no other credentials yet than a
token's secret: over TCP a controller with a CA speaks TLS only, with a certificate that says `controllers.sterna`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import log_joined, needs
from sterna.api.problems import documented
from sterna.controller.intents.origin_shares import OriginShares
from sterna.domain.access import Action
from sterna.domain.errors import NotFound, SternaError, Temporary
from sterna.domain.plain_text import printable
from sterna.domain.trust.joining import MOST_PEM_BYTES, JoinAnswer, JoinRequest, RenewalRequest
from sterna.ports.identity import CertificateIssuer

log = structlog.get_logger(__name__)

router = APIRouter(tags=["joining"], prefix="/v1", dependencies=[needs(Action.JOIN)])


class CaOut(BaseModel):
    """The CA's certificate."""

    ca: str = Field(
        description="PEM. Compare its fingerprint with the one in the token before you send anything else."
    )


class JoinIn(BaseModel):
    """A join token's secret, and a certificate request."""

    model_config = ConfigDict(extra="forbid")
    v: int = Field(default=1, ge=1, le=1, description="Version of this request.")
    host: str = Field(max_length=63, description="As in the token.", examples=["host1"])
    secret: str = Field(max_length=64, repr=False, description="The secret in the token.")
    request: str = Field(max_length=MOST_PEM_BYTES, description="PKCS #10, PEM.")


class RenewalIn(BaseModel):
    """The current certificate, and a request for the next one, signed with the current key."""

    model_config = ConfigDict(extra="forbid")
    v: int = Field(default=1, ge=1, le=1, description="Version of this request.")
    certificate: str = Field(max_length=MOST_PEM_BYTES, description="The current certificate, PEM.")
    request: str = Field(max_length=MOST_PEM_BYTES, description="PKCS #10, PEM, with a new key.")
    signature: str = Field(max_length=1024, description="Signature of the request, ECDSA with SHA-256, in base64.")


class CertificateOut(BaseModel):
    """A new certificate."""

    v: int = Field(description="Version of this response.")
    certificate: str = Field(description="PEM.")
    ca: str = Field(description="The CA's certificate, PEM.")

    @classmethod
    def of(cls, answer: JoinAnswer) -> CertificateOut:
        """From the CA's answer."""
        return cls(v=answer.v, certificate=answer.certificate, ca=answer.ca)


def _desk_of(request: Request) -> CertificateIssuer:
    desk: CertificateIssuer | None = request.app.state.desk
    if desk is None:
        raise NotFound(
            "this controller has no CA", fix="use the controller whose settings have `ca_folder` in [access]"
        )
    return desk


Desk = Annotated[CertificateIssuer, Depends(_desk_of)]


@router.get("/ca", summary="The CA's certificate", responses=documented(401, 404))
async def show_ca(desk: Desk) -> CaOut:
    """The certificate alone proves nothing; compare its fingerprint with the one in the token."""
    return CaOut(ca=await desk.ca())


@router.post("/join", summary="Join with a token", responses=documented(400, 401, 404, 409, 503))
async def join(wanted: JoinIn, request: Request, desk: Desk) -> CertificateOut:
    """The token is the authentication. The request may be repeated with the same key, in case the response was
    lost. 409 for a token that is not valid, has expired, or was used with another key. 503 if the CA is
    unavailable or busy."""
    with _telling(request, host=wanted.host), _in_its_share(request):
        answer = await desk.join(JoinRequest(**wanted.model_dump()), "")
    await log_joined(request, answer.holder)
    return CertificateOut.of(answer)


@router.post("/renewals", summary="Renew a certificate", responses=documented(400, 401, 404, 409, 503))
async def renew(wanted: RenewalIn, request: Request, desk: Desk) -> CertificateOut:
    """The signature is the authentication. 409 for a revoked certificate: its holder was removed or has joined
    again."""
    with _telling(request), _in_its_share(request):
        answer = await desk.renew(RenewalRequest(**wanted.model_dump()), "")
    await log_joined(request, answer.holder)
    return CertificateOut.of(answer)


@contextmanager
def _in_its_share(request: Request) -> Iterator[None]:
    """While the CA is asked. Raises Temporary where too many ask at once, above all from there."""
    shares: OriginShares = request.app.state.joining
    origin = request.scope["state"]["share"]
    if not shares.take(origin):
        raise Temporary("the CA is busy: too many requests at once", fix="try again in a moment", delay_s=1)
    try:
        yield
    finally:
        shares.give_back(origin)


@contextmanager
def _telling(request: Request, **more: str) -> Iterator[None]:
    """The log of requests has only those who have proven who they are: others are in the controller's own log."""
    try:
        yield
    except SternaError as error:
        words = {key: printable(value) for key, value in more.items()}
        origin = request.scope["state"]["origin"]
        log.warning("a request for a certificate was refused", origin=origin, why=printable(error.message), **words)
        raise
