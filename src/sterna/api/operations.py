"""`/v1/operations`: empty hosts, rebalance them, bring VMs back; and what can be asked of an operation."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Limit, Served, position
from sterna.api.operation_models import OperationDetailOut, OperationIn, OperationOut, OperationsOut, PreviewOut
from sterna.api.problems import documented
from sterna.domain.access import Action
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.ports.operations import OperationPage

router = APIRouter(prefix="/v1", tags=["operations"])
_READ = [needs(Action.READ)]
_OPERATE = [needs(Action.OPERATE)]
OperationId = Annotated[
    str, Path(max_length=64, description="The operation's UUID."), AfterValidator(lambda id: str(id).lower())
]


@router.post("/operations", status_code=202, summary="Begin an operation", dependencies=_OPERATE,
             responses={200: {"model": OperationOut, "description": "This id was accepted before"},
                        **documented(404, 409, 422, 503)})  # fmt: skip
async def begin_operation(
    wanted: OperationIn, asking: Request, response: Response, controller: Served
) -> OperationOut:
    """A drain: its hosts take no VMs from now on, and their own are moved to others. A rolling operation: the same
    wave by wave, and each host is opened again. A rebalance and a bring-back move VMs, and close no host. 409 where
    another operation works on one of its hosts; a rebalance conflicts with other rebalances only. 422 where a drain
    would probably miss its deadline, with the time that is lacking, and for a webhook that is not allowed. Also for
    a rebalance that is off, and where nothing is to be brought back."""
    record, repeated = await controller.operate.begin(wanted.asked(actor_of(asking).name))
    response.status_code = 200 if repeated else 202
    response.headers["Location"] = f"/v1/operations/{record.id}"
    return OperationOut.of(record)


@router.post("/operations/preview", summary="Show what an operation would do", responses=documented(404, 422, 503),
             dependencies=[needs(Action.PLAN)])  # fmt: skip
async def preview_operation(wanted: OperationIn, controller: Served) -> PreviewOut:
    """Changes nothing. Asks only the hosts that would be emptied, for lists of their VMs. A host may still refuse
    a VM that is planned to go there."""
    return PreviewOut.of(await controller.operate.preview(wanted.asked("")))


@router.get("/operations", summary="List operations", dependencies=_READ, responses=documented(400, 422))
async def list_operations(
    controller: Served,
    cursor: Cursor = None,
    limit: Limit = 50,
    status: Annotated[list[OperationStatus] | None, Query(description="Any of these.")] = None,
    id: Annotated[str, Query(description="Only ids that begin like this.", max_length=36)] = "",
) -> OperationsOut:
    """Newest first."""
    before = position(cursor, "cursor", "use `next_cursor` of the previous page") if cursor is not None else None
    page = OperationPage(before=before, limit=limit + 1, statuses=tuple(status or ()), id_prefix=id)
    found = await controller.fleet.operations(page)
    more = str(found[limit - 1].number) if len(found) > limit else None
    return OperationsOut(operations=[OperationOut.of(one) for one in found[:limit]], next_cursor=more)


@router.get("/operations/{id}", summary="Show an operation", dependencies=_READ, responses=documented(404))
async def show_operation(id: OperationId, controller: Served) -> OperationDetailOut:
    """One operation, with each migration that it has decided on, and the reason for each VM that waits or stays."""
    record = await controller.fleet.operation(id)
    attempts, steps = await controller.fleet.attempts(id), await controller.fleet.host_steps(id)
    return OperationDetailOut.with_moves(record, attempts, steps)


@router.post("/operations/{id}/pause", status_code=202, summary="Pause an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def pause_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """It starts no more migrations. Those that run go on."""
    return OperationOut.of(await controller.operate.order(id, Order.PAUSE, actor_of(asking).name))


@router.post("/operations/{id}/resume", status_code=202, summary="Resume an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def resume_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """One that is paused, was stopped, or has left VMs goes on, and closes its hosts again where they were opened.
    VMs that have failed are tried again. 409 for an undo that was stopped: ask for the undo again."""
    return OperationOut.of(await controller.operate.order(id, Order.RESUME, actor_of(asking).name))


@router.post("/operations/{id}/stop", status_code=202, summary="Stop an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def stop_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """It starts no more migrations, and aborts those that can be aborted. The hosts of a drain stay closed; those
    that an undo has opened stay open."""
    return OperationOut.of(await controller.operate.order(id, Order.STOP, actor_of(asking).name))


@router.get("/operations/{id}/undo", summary="Show what an undo would do", responses=documented(404, 503),
            dependencies=[needs(Action.PLAN)])  # fmt: skip
async def preview_undo(id: OperationId, controller: Served) -> PreviewOut:
    """Changes nothing. The VMs that would be brought back, as the fleet is now, and those that would stay where
    they are. Asks the hosts that they are on for lists of their VMs."""
    return PreviewOut.of(await controller.operate.preview_undo(id))


@router.post("/operations/{id}/undo", status_code=202, summary="Undo an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def undo_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """As a stop. Its hosts are opened again, and the VMs that it has moved are brought back, unless somebody has
    moved them since. One that has left VMs may be asked for again. A host that may be rebooted any moment is opened
    when it is back."""
    return OperationOut.of(await controller.operate.order(id, Order.UNDO, actor_of(asking).name))


@router.post("/operations/{id}/hosts/{host}/done", status_code=202, summary="Say that a host is done",
             dependencies=_OPERATE, responses=documented(404, 409, 503))  # fmt: skip
async def host_is_done(
    id: OperationId,
    host: Annotated[str, Path(max_length=255, description="Its name.")],
    asking: Request,
    controller: Served,
) -> OperationOut:
    """What was to be done to an empty host of a rolling operation is done. It is opened when its agent is up. May
    be repeated. 409 where the host is not empty yet."""
    return OperationOut.of(await controller.operate.host_done(id, host, actor_of(asking).name))
