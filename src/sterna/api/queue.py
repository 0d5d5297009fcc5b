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
    """A migration that shall run and has not begun."""

    operation_id: str | None = Field(description="Null for a single migration.")
    migration_id: str | None = Field(description="Null while it has none: an operation has not decided on it yet.")
    seen_at: str = Field(description="ISO 8601 UTC: when the reason was written down.")

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
    """An operation of which nothing is known yet."""

    operation_id: str
    reason: str

    @classmethod
    def of(cls, one: Unplanned) -> UnplannedOut:
        """From the queue."""
        return cls(operation_id=one.operation, reason=one.reason)


class QueueOut(BaseModel):
    """A page of what waits."""

    waits: list[WaitingOut]
    unplanned: list[UnplannedOut] = Field(description="Operations that no controller has looked at yet.")
    next_cursor: str | None = Field(description="Where the next page begins; null where there is none.")


class ChoiceOut(BaseModel):
    """A host that a VM could go to, or could not."""

    host: str
    score: float | None = Field(description="Less is better. Null where the VM cannot go there.")
    words: str = Field(description="What the VM would leave of it; '' where it cannot go there.")
    refusals: list[str] = Field(description="Why it cannot go there; none where it can.")

    @classmethod
    def of(cls, choice: Choice) -> ChoiceOut:
        """From the ranking."""
        return cls(**choice.model_dump(exclude={"refusals"}), refusals=list(choice.refusals))


class PlacementOut(BaseModel):
    """All hosts for a VM but its own, the best first."""

    vm: VmOut
    stays: str | None = Field(description="Why it can be moved to no host now; null where it can.")
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
    """As drains choose: by room, placement rules, and what is on its way already. Starts nothing and asks no host,
    so that one may still refuse the VM."""
    return PlacementOut.of(await controller.place(vm))


@router.get("/queue", summary="List what waits", tags=["operations"], dependencies=_READ,
            responses=documented(400, 422))  # fmt: skip
async def list_queue(
    controller: Served,
    host: Annotated[str, Query(max_length=255, description="Only what leaves this host, or goes there.")] = "",
    operation: Annotated[
        str, Query(max_length=36, description="Only what this operation waits with: its id.")
    ] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> QueueOut:
    """Single migrations first, then operations, the oldest first, each in the order in which its migrations will
    probably begin. A migration that begins between two pages may make one begin at its operation's first again."""
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
    fix = "take next_cursor of the page before"
    return position(kind, "cursor", fix), position(number, "cursor", fix), which
