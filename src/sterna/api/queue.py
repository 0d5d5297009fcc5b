"""`/v1/queue` and `/v1/vms/{vm}/placement`: what waits and why, and where a VM could go."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from sterna.api.access import needs
from sterna.api.dependencies import Cursor, Limit, Served, cursor_of, place_of, position
from sterna.api.fleet_models import VmOut
from sterna.api.operation_models import WaitOut
from sterna.api.problems import documented
from sterna.controller.intents.place_vm import Placement
from sterna.controller.intents.waiting_list import Place, Queue, Unplanned, Waiting, behind
from sterna.domain.access import Action
from sterna.domain.fleet.ranking import Choice

router = APIRouter(prefix="/v1")
_READ = [needs(Action.READ)]


class WaitingOut(WaitOut):
    """A migration that has not started."""

    operation_id: str | None = Field(description="Null for a single migration.")
    migration_id: str | None = Field(description="Null if the operation has not decided on it yet.")
    seen_at: str = Field(description="ISO 8601 UTC: when the reason was recorded.")

    @classmethod
    def of_queue(cls, one: Waiting) -> WaitingOut:
        """From the queue."""
        return cls(
            **WaitOut.of(one.wait).model_dump(),
            operation_id=one.operation or None,
            migration_id=one.migration or None,
            seen_at=one.seen_at,
        )


class UnplannedOut(BaseModel):
    """An operation without a plan yet."""

    operation_id: str
    reason: str

    @classmethod
    def of(cls, one: Unplanned) -> UnplannedOut:
        """From the queue."""
        return cls(operation_id=one.operation, reason=one.reason)


class QueueOut(BaseModel):
    """A page of the queue."""

    waits: list[WaitingOut]
    unplanned: list[UnplannedOut] = Field(description="Operations that no controller has planned yet.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page.")


class ChoiceOut(BaseModel):
    """A host in the ranking of destinations for a VM."""

    host: str
    score: float | None = Field(description="Lower is better. Null if the VM cannot run there.")
    words: str = Field(description="Capacity left with the VM there, as text; empty if it cannot run there.")
    refusals: list[str] = Field(description="Why the VM cannot run there; empty if it can.")

    @classmethod
    def of(cls, choice: Choice) -> ChoiceOut:
        """From the ranking."""
        return cls(**choice.model_dump(exclude={"refusals"}), refusals=list(choice.refusals))


class PlacementOut(BaseModel):
    """All hosts except the VM's own, best first."""

    vm: VmOut
    stays: str | None = Field(description="Why the VM cannot be migrated to any host now; null if it can.")
    hosts: list[ChoiceOut]

    @classmethod
    def of(cls, placement: Placement) -> PlacementOut:
        """From the controller's answer."""
        return cls(
            vm=VmOut.of(placement.vm),
            stays=placement.ranking.stays or None,
            hosts=[ChoiceOut.of(one) for one in placement.ranking.choices],
        )


@router.get("/vms/{vm}/placement", summary="Rank all hosts for a VM", tags=["VMs"], dependencies=_READ,
            responses=documented(404, 422))  # fmt: skip
async def show_placement(vm: str, controller: Served) -> PlacementOut:
    """The ranking that drains use: by free capacity, placement rules and running migrations. Starts nothing and
    asks no host, so a host may still refuse the VM."""
    return PlacementOut.of(await controller.place(vm))


@router.get("/queue", summary="List migrations that have not started", tags=["operations"], dependencies=_READ,
            responses=documented(400, 422))  # fmt: skip
async def list_queue(
    controller: Served,
    host: Annotated[str, Query(max_length=255, description="Only migrations from or to this host.")] = "",
    operation: Annotated[
        str, Query(max_length=36, description="Only migrations of the operation with this ID.")
    ] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> QueueOut:
    """Single migrations first, then operations, oldest first, each with its migrations in the order in which they
    will probably start. If a migration starts between two pages, the second page may repeat its operation from the
    beginning."""
    queue = await controller.queue.all(host=host, operation=operation.lower())
    rest = queue if cursor is None else behind(queue, _place(cursor))
    more = _cursor(rest, limit) if len(rest.waits) > limit else None
    return QueueOut(
        waits=[WaitingOut.of_queue(one) for one in rest.waits[:limit]],
        unplanned=[UnplannedOut.of(one) for one in queue.unplanned],
        next_cursor=more,
    )


def _cursor(queue: Queue, limit: int) -> str:
    kind, number, which = queue.waits[limit - 1].place
    return cursor_of(str(kind), str(number), which)


def _place(cursor: str) -> Place:
    """Raises BadRequest."""
    kind, number, which = place_of(cursor, 3)
    fix = "use `next_cursor` of the previous page"
    return position(kind, "cursor", fix), position(number, "cursor", fix), which
