"""`/servers/ID/os-instance-actions`: what was asked for of a server, and what became of it.

Migrations are in the records: the ID of one is that of the request that asked for it. Aborts and forced ends are in
the audit log. What was refused is in neither list, as in Nova's.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import at, check_query, instant, moment, page
from sterna.api.compute.server_view import host_id
from sterna.controller.records.servers import Server
from sterna.domain.access import Action
from sterna.domain.compute.policies import Rule
from sterna.domain.model import Value
from sterna.domain.status import Status
from sterna.domain.timeline import Item, What
from sterna.ports.access import LogPage, LogRecord
from sterna.ports.fleet import MigrationRecord, Page

router = APIRouter(prefix="/v2.1/servers/{server}/os-instance-actions")
MOST = 500
"""Of each kind: the newest."""
_ALSO = {Action.ABORT: "live_migration_cancel", Action.POST_COPY: "live_migration_force_complete"}
_WRONG = (Status.FAILED, Status.ERROR)
_KNOWN = {"limit": 58, "marker": 58, "changes-since": 58, "changes-before": 66}
"""The minor version from which on there is each parameter."""


class _Done(Value):
    """One action."""

    action: str
    request_id: str
    user_id: str | None
    project_id: str | None
    began: str
    updated: str
    failed: bool = False
    migration: MigrationRecord | None = None


@router.get("", dependencies=[rule(Rule.ACTIONS)])
async def list_actions(server: str, call: Asking, request: Request) -> dict[str, Any]:
    """Newest first."""
    query = request.query_params
    if call.has(58):
        check_query(query, [name for name, since in _KNOWN.items() if call.has(since)])
    found = await call.server(server, Rule.ACTIONS)
    done = await _actions(call, found)
    if not call.has(58):
        return {"instanceActions": [_view(call, found, one) for one in done]}
    since, before = instant(query, "changes-since"), instant(query, "changes-before")
    if since is not None and before is not None and before < since:
        raise HTTPException(400, "changes-since is later than changes-before")
    done = [
        one
        for one in done
        if (since is None or at(one.updated) >= since) and (before is None or at(one.updated) <= before)
    ]
    path = f"servers/{server}/os-instance-actions"
    listed, links = page(call, request, done, path, [one.request_id for one in done])
    view = {"instanceActions": [_view(call, found, one) for one in listed]}
    return view | ({} if links is None else {"links": links})


@router.get("/{request_id}", dependencies=[rule(Rule.ACTION)])
async def show_action(server: str, request_id: str, call: Asking) -> dict[str, Any]:
    """One, with what happened in it."""
    found = await call.server(server, Rule.ACTION)
    for one in await _actions(call, found):
        if one.request_id == request_id:
            view = _view(call, found, one)
            if call.has(51) or call.may(Rule.ACTION_DETAILS):
                view["events"] = await _events(call, found, one)
            return {"instanceAction": view}
    raise HTTPException(404, f"Action {request_id[:64]} not found")


async def _actions(call: Call, server: Server) -> list[_Done]:
    records = await call.controller.migrations(Page(vm=server.vm.uuid, limit=MOST))
    done = [_of_migration(record) for record in records if not record.migration.options.rehearse]
    for action, word in _ALSO.items():
        lines = await call.controller.users.page(LogPage(action=action, target=server.vm.uuid, limit=MOST))
        done += [_of_line(line, word) for line in lines if line.status == 202]
    return sorted(done, key=lambda one: at(one.began), reverse=True)


def _of_migration(record: MigrationRecord) -> _Done:
    who = record.migration.options.requester
    return _Done(
        action="live-migration",
        request_id=f"req-{record.id}",
        user_id=who.user_id if who else None,
        project_id=who.project_id if who else None,
        began=record.migration.created_at,
        updated=record.updated_at,
        failed=record.status in _WRONG,
        migration=record,
    )


def _of_line(line: LogRecord, word: str) -> _Done:
    asked = line.asked
    return _Done(
        action=word,
        request_id=asked.request,
        user_id=asked.user_id or None,
        project_id=asked.project_id or None,
        began=asked.at,
        updated=asked.at,
    )


def _view(call: Call, server: Server, one: _Done) -> dict[str, Any]:
    view = {
        "action": one.action,
        "instance_uuid": server.vm.uuid,
        "request_id": one.request_id,
        "user_id": one.user_id,
        "project_id": one.project_id,
        "start_time": moment(one.began),
        "message": "Error" if one.failed else None,
    }
    return view | ({"updated_at": moment(one.updated)} if call.has(58) else {})


async def _events(call: Call, server: Server, one: _Done) -> list[dict[str, Any]]:
    """One for each phase, newest first."""
    if one.migration is None:
        return [_event(call, server, f"sterna_{one.action}", (one.began, one.began), (server.vm.host, None))]
    items = [i for i in await call.controller.timeline(one.migration.id) if i.what is What.STATUS]
    if not items:
        return [_event_of_record(call, server, one, one.migration)]
    ends = [item.started_at for item in items[1:]] + [one.updated if one.migration.status.final else ""]
    events = [
        _event(
            call,
            server,
            _name(item.status),
            (item.started_at, end),
            (item.host, _why(item, one.migration)),
        )
        for item, end in zip(items, ends, strict=True)
    ]
    return events[::-1]


def _event_of_record(call: Call, server: Server, one: _Done, record: MigrationRecord) -> dict[str, Any]:
    """No journal has anything of it: its source has not accepted it yet, or never did."""
    ended, why = one.updated if record.status.final else "", record.reason if one.failed else None
    return _event(call, server, _name(record.status), (one.began, ended), (record.migration.source, why))


def _name(status: str) -> str:
    return f"sterna_{status.replace('-', '_')}"


def _why(item: Item, record: MigrationRecord) -> str | None:
    """What went wrong, where this phase is there because of it."""
    if item.status in (Status.ROLLING_BACK, *_WRONG):
        said = (record.error or {}).get("message") or item.reason or record.reason
        return str(said)
    return None


def _event(
    call: Call, server: Server, name: str, times: tuple[str, str], where: tuple[str, str | None]
) -> dict[str, Any]:
    (began, ended), (host, why) = times, where
    all_of_it = call.may(Rule.ACTION_DETAILS)
    view: dict[str, Any] = {"event": name, "start_time": moment(began), "finish_time": moment(ended)}
    view["result"] = None if not ended else "Error" if why else "Success"
    if all_of_it:
        view["traceback"] = None
    if call.has(62):
        view["hostId"] = host_id(server.project_id, host)
        view |= {"host": host} if all_of_it else {}
    if call.has(84) and all_of_it:
        view["details"] = why
    return view
