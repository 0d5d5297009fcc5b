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
    """Which hosts to examine."""

    model_config = ConfigDict(extra="forbid")
    hosts: list[str] = Field(
        default=[], max_length=MOST_NAMED, description="By name. Empty: all that are neither dead nor removed."
    )


class DoctorOut(BaseModel):
    """What was found."""

    level: Level = Field(description="The worst of all lines.")
    findings: list[Finding]
    hosts_asked: int = Field(description="How many hosts have looked.")
    silent_hosts: list[str] = Field(description="Could not be asked. Each has a line as well.")
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


@router.post("/doctor", summary="Examine hosts", responses=documented(404, 422))
async def examine(wanted: DoctorIn, controller: Served) -> DoctorOut:
    """Each host looks at itself and at up to 8 others: their libvirtd, a memory stream, packets of full size,
    shared folders. Nothing is changed. Takes up to 100 s: hosts that could not be asked by then are named."""
    return DoctorOut.of(await controller.doctor.examine(wanted.hosts))
