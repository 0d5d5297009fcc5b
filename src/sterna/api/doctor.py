"""`/v1/doctor`: is everything on the hosts as it must be?"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.problems import documented
from sterna.controller.intents.examine import Diagnosis
from sterna.domain.access import Action
from sterna.domain.doctor.findings import Finding, Level

router = APIRouter(prefix="/v1", tags=["hosts"], dependencies=[needs(Action.EXAMINE)])
MOST_NAMED = 1000


class DoctorIn(BaseModel):
    """Which hosts to check."""

    model_config = ConfigDict(extra="forbid")
    hosts: list[str] = Field(
        default=[],
        max_length=MOST_NAMED,
        description="Names of hosts. Empty: all that are neither dead nor removed.",
    )


class DoctorOut(BaseModel):
    """Results of the checks."""

    level: Level = Field(description="The worst level of all findings.")
    findings: list[Finding]
    hosts_asked: int = Field(description="How many hosts responded.")
    silent_hosts: list[str] = Field(description="Hosts that could not be asked. Each has a finding as well.")
    silent_reasons: dict[str, str] = Field(description="Why each of these could not be asked.")

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> DoctorOut:
        """From the controller's answer."""
        return cls(
            level=diagnosis.level,
            findings=list(diagnosis.findings),
            hosts_asked=diagnosis.asked,
            silent_hosts=sorted(diagnosis.silent),
            silent_reasons=diagnosis.silent,
        )


@router.post("/doctor", summary="Check hosts", responses=documented(404, 422))
async def examine(wanted: DoctorIn, controller: Served) -> DoctorOut:
    """Each host checks itself, and its connections to up to 8 others: libvirtd, a memory stream, full-size packets,
    shared folders. Changes nothing. Takes up to 100 s; the response names hosts that did not respond in time."""
    return DoctorOut.of(await controller.doctor.examine(wanted.hosts))
