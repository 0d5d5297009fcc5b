"""`/v1/plans`: what a migration would meet, without making it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Served
from sterna.api.migration_models import IGNORE_RULES, ObjectiveIn
from sterna.api.problems import documented
from sterna.controller.intents.plan_migration import Forecasting, Plan
from sterna.domain.access import Action

router = APIRouter(prefix="/v1", tags=["plans"])


class PlanIn(ObjectiveIn):
    """A migration to be planned."""

    vm: str = Field(min_length=1, max_length=255, description="Name or UUID.")
    destination: str | None = Field(
        default=None, min_length=1, max_length=255, description="A host's name; null: Sterna chooses."
    )
    ignore_rules: bool = IGNORE_RULES
    rehearse: bool = Field(
        default=False,
        strict=True,
        description="Carry out every step before the copy, then undo them. Recorded as a migration.",
    )
    with_copy: bool = Field(
        default=False,
        strict=True,
        description="Rehearse, and also start a slow copy; it is aborted at its first sample.",
    )


@router.post("/plans", summary="Plan a migration", responses=documented(404, 409, 422, 503),
             dependencies=[needs(Action.PLAN)])  # fmt: skip
async def plan_migration(wanted: PlanIn, asking: Request, controller: Served) -> Plan:
    """Changes nothing. Takes some seconds, because the guest's dirty rate is measured. Lists every blocker at once.

    With `rehearse`, every step before the copy is carried out and undone.
    """
    plan = await controller.plan(wanted.vm, wanted.destination, wanted.asked(), ignore_rules=wanted.ignore_rules)
    if wanted.rehearse or wanted.with_copy:
        by = actor_of(asking).name
        plan = await controller.rehearse(plan, wanted.asked(), with_copy=wanted.with_copy, requested_by=by)
    return plan


@router.get("/accuracy", summary="Compare forecasts with results", dependencies=[needs(Action.READ)])
async def show_accuracy(controller: Served) -> Forecasting:
    """For the last completed migrations with a forecast: the load was measured shortly before the copy, and the
    bandwidth was known from earlier migrations between the hosts or from a limit."""
    return await controller.accuracy()
