"""Where a host that joins gets its certificate. Each request proves by itself what it may: no login is needed.

To be served over TLS only, with a certificate of the CA that says `controllers.sterna`: a token's secret is in it.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.problems import documented
from sterna.domain.trust.joining import MOST_PEM_BYTES, JoinAnswer, JoinRequest, RenewalRequest
from sterna.ports.identity import JoinDesk


class CaOut(BaseModel):
    """The CA's certificate."""

    ca: str = Field(description="PEM. Compare its fingerprint with the token's before anything else is sent.")


class JoinIn(BaseModel):
    """A token's secret, and a request for a certificate."""

    model_config = ConfigDict(extra="forbid")
    v: int = Field(default=1, ge=1, le=1)
    host: str = Field(max_length=63)
    secret: str = Field(max_length=64, repr=False)
    request: str = Field(max_length=MOST_PEM_BYTES, description="PKCS #10, PEM.")


class RenewalIn(BaseModel):
    """The present certificate, and a request for the next one that its key has signed."""

    model_config = ConfigDict(extra="forbid")
    v: int = Field(default=1, ge=1, le=1)
    certificate: str = Field(max_length=MOST_PEM_BYTES, description="PEM.")
    request: str = Field(max_length=MOST_PEM_BYTES, description="PKCS #10, PEM.")
    signature: str = Field(max_length=1024, description="Of the request, ECDSA with SHA-256, in base64.")


class CertificateOut(BaseModel):
    """A new certificate."""

    v: int = Field(description="Version of this answer.")
    certificate: str = Field(description="PEM.")
    ca: str = Field(description="The CA's certificate, PEM.")


def router_of(desk: JoinDesk) -> APIRouter:
    """The routes, over the CA's own desk."""
    router = APIRouter(tags=["joining"], prefix="/v1")

    @router.get("/ca", summary="The CA's certificate")
    async def ca() -> CaOut:
        return CaOut(ca=await desk.ca())

    @router.post("/join", summary="Join with a token", responses=documented(400, 409))
    async def join(wanted: JoinIn) -> CertificateOut:
        return _out(await desk.join(JoinRequest(**wanted.model_dump()), ""))

    @router.post("/renewals", summary="Renew a certificate", responses=documented(400, 409))
    async def renew(wanted: RenewalIn) -> CertificateOut:
        return _out(await desk.renew(RenewalRequest(**wanted.model_dump()), ""))

    return router


def _out(answer: JoinAnswer) -> CertificateOut:
    return CertificateOut(**answer.model_dump())
