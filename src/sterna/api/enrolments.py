"""`/v1/enrolments`: which hosts are enrolled, where this controller has the CA."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.problems import documented
from sterna.domain.access import Action
from sterna.domain.trust.enrolment import EnrolledHost

router = APIRouter(prefix="/v1", tags=["hosts"])


class EnrolmentOut(BaseModel):
    """One host, as the CA's register has it."""

    name: str = Field(examples=["host1"])
    state: Literal["invited", "joined", "removed"] = Field(
        description="`invited`: it may join, but has not yet. `removed`: its certificates are revoked."
    )
    addresses: list[str] = Field(
        description="Migration addresses that it was enrolled with.", examples=[["10.0.0.1"]]
    )
    certificate_until: str | None = Field(
        description="ISO 8601 UTC: when the last of its certificates expires; null if none is valid."
    )
    removed_at: str | None = Field(description="ISO 8601 UTC; null if it was not removed.")
    knows_revoked: bool | None = Field(
        description="Whether it refuses all certificates that are revoked now. Null if its agent does not report "
        "this, or has sent no heartbeat for 5 s."
    )

    @classmethod
    def of(cls, host: EnrolledHost, knows_revoked: bool | None) -> EnrolmentOut:
        """From the CA's, and its agent's last beacon."""
        return cls(
            name=host.name,
            state=host.state,
            addresses=list(host.addresses),
            certificate_until=host.until.isoformat() if host.until else None,
            removed_at=host.removed.isoformat() if host.removed else None,
            knows_revoked=knows_revoked if host.state == "joined" else None,
        )


class EnrolmentsOut(BaseModel):
    """All hosts that were ever enrolled, by name."""

    hosts: list[EnrolmentOut]


@router.get(
    "/enrolments",
    summary="List enrolled hosts",
    dependencies=[needs(Action.READ)],
    responses=documented(404, 503),
)
async def list_enrolments(controller: Served) -> EnrolmentsOut:
    """404 if this controller has no CA (`ca_folder`): it does not know which hosts are enrolled."""
    listed, knows = await controller.members.hosts(), controller.revoking.knows
    return EnrolmentsOut(hosts=[EnrolmentOut.of(host, knows(host.name)) for host in listed])
