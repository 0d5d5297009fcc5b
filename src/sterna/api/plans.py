"""`/v1/plans`: what a migration would meet, without making it."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from sterna.api.models import ObjectiveIn
from sterna.api.problems import documented
from sterna.api.serving import Served
from sterna.controller.plan_migration import Forecasting, Plan

router = APIRouter(prefix="/v1", tags=["plans"])


class PlanIn(ObjectiveIn):
    """A migration that is not made."""

    vm: str = Field(min_length=1, max_length=255, description="Name or UUID.")
    destination: str | None = Field(
        default=None, min_length=1, max_length=255, description="A host's name; null: Sterna chooses."
    )


@router.post("/plans", summary="Plan a migration", responses=documented(404, 422, 503))
async def plan_migration(wanted: PlanIn, controller: Served) -> Plan:
    """Changes nothing; takes some seconds, in which the guest's dirty rate is measured. Every blocker at once."""
    return await controller.plan(wanted.vm, wanted.destination, wanted.asked())


@router.get("/accuracy", summary="How good the forecasts were")
async def show_accuracy(controller: Served) -> Forecasting:
    """Of the last completed migrations that had one: those with a bandwidth limit and a reason to measure."""
    return await controller.accuracy()
