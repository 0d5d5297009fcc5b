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


@router.post("/operations", status_code=202, summary="Start an operation", dependencies=_OPERATE,
             responses={200: {"model": OperationOut, "description": "This ID was accepted before"},
                        **documented(404, 409, 422, 503)})  # fmt: skip
async def begin_operation(
    wanted: OperationIn, asking: Request, response: Response, controller: Served
) -> OperationOut:
    """A drain: its hosts accept no more VMs, and their own VMs are migrated to other hosts. A rolling operation:
    the same wave by wave, and each host is opened again. A rebalance and a bring-back migrate VMs, and close no
    host. 409 if another operation uses one of the hosts; a rebalance conflicts with other rebalances only. 422 if a
    drain would probably miss its deadline, with the missing time, and for a webhook that is not allowed. Also for a
    rebalance that is off, and if there is nothing to bring back."""
    record, repeated = await controller.operate.begin(wanted.asked(actor_of(asking).name))
    response.status_code = 200 if repeated else 202
    response.headers["Location"] = f"/v1/operations/{record.id}"
    return OperationOut.of(record)


@router.post("/operations/preview", summary="Show what an operation would do", responses=documented(404, 422, 503),
             dependencies=[needs(Action.PLAN)])  # fmt: skip
async def preview_operation(wanted: OperationIn, controller: Served) -> PreviewOut:
    """Changes nothing. Asks only the hosts to be drained, for lists of their VMs. A destination may still refuse a
    VM."""
    return PreviewOut.of(await controller.operate.preview(wanted.asked("")))


@router.get("/operations", summary="List operations", dependencies=_READ, responses=documented(400, 422))
async def list_operations(
    controller: Served,
    cursor: Cursor = None,
    limit: Limit = 50,
    status: Annotated[list[OperationStatus] | None, Query(description="Any of these.")] = None,
    id: Annotated[str, Query(description="Only IDs that begin with this.", max_length=36)] = "",
) -> OperationsOut:
    """Newest first."""
    before = position(cursor, "cursor", "use `next_cursor` of the previous page") if cursor is not None else None
    page = OperationPage(before=before, limit=limit + 1, statuses=tuple(status or ()), id_prefix=id)
    found = await controller.fleet.operations(page)
    more = str(found[limit - 1].number) if len(found) > limit else None
    return OperationsOut(operations=[OperationOut.of(one) for one in found[:limit]], next_cursor=more)


@router.get("/operations/{id}", summary="Show an operation", dependencies=_READ, responses=documented(404))
async def show_operation(id: OperationId, controller: Served) -> OperationDetailOut:
    """An operation with all its migrations, and the reason for each VM that waits or stays."""
    record = await controller.fleet.operation(id)
    attempts, steps = await controller.fleet.attempts(id), await controller.fleet.host_steps(id)
    return OperationDetailOut.with_moves(record, attempts, steps)


@router.post("/operations/{id}/pause", status_code=202, summary="Pause an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def pause_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """It starts no more migrations; running ones continue."""
    return OperationOut.of(await controller.operate.order(id, Order.PAUSE, actor_of(asking).name))


@router.post("/operations/{id}/resume", status_code=202, summary="Resume an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def resume_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """Resumes an operation that is paused, stopped or incomplete. Hosts that were opened are closed again. VMs that
    failed are tried again. 409 for an undo that was stopped: request the undo again."""
    return OperationOut.of(await controller.operate.order(id, Order.RESUME, actor_of(asking).name))


@router.post("/operations/{id}/stop", status_code=202, summary="Stop an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def stop_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """It starts no more migrations, and aborts those that have not switched over. Closed hosts stay closed. Hosts
    that an undo has opened stay open."""
    return OperationOut.of(await controller.operate.order(id, Order.STOP, actor_of(asking).name))


@router.get("/operations/{id}/undo", summary="Show what an undo would do", responses=documented(404, 503),
            dependencies=[needs(Action.PLAN)])  # fmt: skip
async def preview_undo(id: OperationId, controller: Served) -> PreviewOut:
    """Changes nothing. Shows the VMs that would be migrated back now, and those that would stay. Asks their hosts
    for lists of their VMs."""
    return PreviewOut.of(await controller.operate.preview_undo(id))


@router.post("/operations/{id}/undo", status_code=202, summary="Undo an operation", dependencies=_OPERATE,
             responses=documented(404, 409, 503))  # fmt: skip
async def undo_operation(id: OperationId, asking: Request, controller: Served) -> OperationOut:
    """Stops the operation, opens its hosts again, and migrates its VMs back. A VM that has been moved again since
    then stays where it is. If VMs were not brought back, request the undo again. A host that may be rebooted at
    any moment is opened once it is back."""
    return OperationOut.of(await controller.operate.order(id, Order.UNDO, actor_of(asking).name))


@router.post("/operations/{id}/hosts/{host}/done", status_code=202, summary="Report that a host is done",
             dependencies=_OPERATE, responses=documented(404, 409, 503))  # fmt: skip
async def host_is_done(
    id: OperationId,
    host: Annotated[str, Path(max_length=255, description="Name of the host.")],
    asking: Request,
    controller: Served,
) -> OperationOut:
    """The work on an empty host of a rolling operation is done. The host is opened once its agent is up.
    Idempotent. 409 if the host is not empty yet."""
    return OperationOut.of(await controller.operate.host_done(id, host, actor_of(asking).name))
