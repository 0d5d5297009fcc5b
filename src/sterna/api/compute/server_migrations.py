"""`/servers/ID/migrations`: those under way; abort, and force complete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from sterna.api.compute import migration_view
from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.hiding import hiding_hosts
from sterna.api.compute.reading import json_body, only, wrong
from sterna.controller.records.registry import Host
from sterna.controller.records.servers import Server
from sterna.domain.compute.policies import Rule
from sterna.domain.compute.statuses import NOT_SHOWN_IN_PROGRESS
from sterna.domain.status import Status
from sterna.ports.fleet import MigrationRecord, Page

router = APIRouter(prefix="/v2.1/servers/{server}/migrations")
_BEFORE_THE_COPY = (Status.QUEUED, Status.PREPARING)
_ARRIVED = (Status.POST_COPY, Status.RECOVERING, Status.POST_MIGRATING)
_ABORT = "abort live migration"


@router.get("", dependencies=[rule(Rule.SERVER_MIGRATIONS)])
async def list_in_progress(server: str, call: Asking) -> dict[str, Any]:
    """One at most."""
    call.needs_version(23)
    found = _under_way(await call.server(server, Rule.SERVER_MIGRATIONS))
    hosts, shown = await _hosts(call), call.may(Rule.MIGRATION_HOSTS)
    listed = [migration_view.of_server(call, record, hosts, show_hosts=shown) for record in found]
    return {"migrations": listed}


@router.get("/{number}", dependencies=[rule(Rule.SERVER_MIGRATION)])
async def show_in_progress(server: str, number: str, call: Asking) -> dict[str, Any]:
    """By its number."""
    call.needs_version(23)
    found = await call.server(server, Rule.SERVER_MIGRATION)
    record = await _called(call, found, number)
    if record is None:
        raise HTTPException(404, f"In-progress live migration {number[:64]} is not found for server {server}.")
    if record.status in NOT_SHOWN_IN_PROGRESS:
        why = f"Live migration {record.number} for server {server} is not in progress: it is {record.status}."
        raise HTTPException(404, why)
    return {"migration": migration_view.of_server(call, record, await _hosts(call), show_hosts=True)}


@router.post("/{number}/action", status_code=202, dependencies=[rule(Rule.FORCE_COMPLETE)])
async def force_complete(server: str, number: str, request: Request, call: Asking) -> Response:
    """Finish now: by post-copy where that is permitted, else the guest is paused until the rest is sent."""
    call.needs_version(22)
    body = await json_body(request)
    only(body, "force_complete", ("force_complete",))
    if body["force_complete"] is not None:
        raise wrong("force_complete", "it is not null")
    found = await call.server(server, Rule.FORCE_COMPLETE)
    record = await _to_change(call, found, number, "force_complete", unknown=400)
    if record.status is not Status.MIGRATING:
        raise _wrong_state(server, record, "force complete")
    async with hiding_hosts(call):
        await call.controller.force_complete(record.id)
    return Response(status_code=202, media_type="application/json")


@router.delete("/{number}", status_code=202, dependencies=[rule(Rule.ABORT)])
async def abort(server: str, number: str, call: Asking) -> Response:
    """Everything is rolled back; after the switch-over, 400."""
    call.needs_version(24)
    found = await call.server(server, Rule.ABORT)
    record = await _to_change(call, found, number, _ABORT, unknown=404)
    if record.status in _ARRIVED or (record.status in _BEFORE_THE_COPY and not call.has(65)):
        raise _wrong_state(server, record, _ABORT)
    async with hiding_hosts(call):
        await call.controller.abort(record.id)
    return Response(status_code=202, media_type="application/json")


def _under_way(server: Server) -> list[MigrationRecord]:
    record = server.migration
    hidden = record is None or record.status in NOT_SHOWN_IN_PROGRESS or record.migration.options.rehearse
    return [] if record is None or hidden else [record]


async def _called(call: Call, server: Server, number: str) -> MigrationRecord | None:
    """The server's migration of that number; None where there is none."""
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        return None
    wanted = Page(vm=server.vm.uuid, before=int(number) + 1, limit=1)
    found = await call.controller.migrations(wanted)
    own = found and found[0].number == int(number) and found[0].migration.vm_uuid == server.vm.uuid
    return found[0] if own and not found[0].migration.options.rehearse else None


async def _to_change(call: Call, server: Server, number: str, what: str, *, unknown: int) -> MigrationRecord:
    """Raises HTTPException where the server is not under way, or not in this one."""
    if not _under_way(server):
        raise HTTPException(
            409, f"Instance {server.vm.uuid} is in an invalid state for '{what}': {_instead(server)}."
        )
    record = await _called(call, server, number)
    if record is None or record.status in NOT_SHOWN_IN_PROGRESS:
        raise HTTPException(unknown, f"Migration {number[:64]} of server {server.vm.uuid} is not under way.")
    return record


def _instead(server: Server) -> str:
    """What a server does of which no migration is under way here."""
    record = server.migration
    if record is not None and record.migration.options.rehearse:
        return f"migration {record.id} only rehearses a move, and ends by itself (`sterna abort` ends it at once)"
    if record is not None and record.status is Status.ERROR:
        return f"migration {record.id} has stopped with an error, which an operator has to see to"
    return "it does not migrate"


def _wrong_state(server: str, record: MigrationRecord, verb: str) -> HTTPException:
    """400, as Nova."""
    why = f"Migration {record.number} state of instance {server} is {record.status}."
    more = " The guest runs on its destination already." if record.status in _ARRIVED else ""
    return HTTPException(400, f"{why} Cannot {verb} while the migration is in this state.{more}")


async def _hosts(call: Call) -> dict[str, Host]:
    return {host.name: host for host in await call.controller.registry.hosts()}
