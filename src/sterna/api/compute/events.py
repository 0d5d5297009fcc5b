"""`/os-server-external-events`: what Neutron and Cinder report, for users of a cloud with the role `service`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.reading import json_body, only, wrong
from sterna.domain.compute.external_events import LONGEST_TAG, SINCE, STATUSES, ExternalEvent, status_of
from sterna.domain.compute.policies import Rule
from sterna.domain.texts import is_uuid

router = APIRouter(prefix="/v2.1/os-server-external-events")


@router.post("", dependencies=[rule(Rule.EVENTS)])
async def take(request: Request, call: Asking) -> JSONResponse:
    """200, or 207 where the code of one is another: 404 of a server that is not known, 422 of an event that Sterna
    does nothing about."""
    body = await json_body(request)
    only(body, "body", ("events",))
    told = body["events"]
    if not isinstance(told, list) or not told:
        raise wrong("events", "it is not a list with an event in it")
    events = [_event(call, f"events.{number}", one) for number, one in enumerate(told)]
    codes = await call.controller.take_events(events)
    answered = [one | {"status": status_of(code), "code": code} for one, code in zip(told, codes, strict=True)]
    return JSONResponse({"events": answered}, 200 if set(codes) == {200} else 207)


def _event(call: Call, where: str, told: Any) -> ExternalEvent:
    """Raises HTTPException for what Nova's schema of this version does not have: then no event is taken."""
    if not isinstance(told, dict):
        raise wrong(where, "it is not an object")
    only(told, where, ("name", "server_uuid"), ("status", "tag"))
    names = [name for name, since in SINCE.items() if call.has(since)]
    if told["name"] not in names:
        raise wrong(f"{where}.name", f"it is none of {', '.join(names)}")
    if not isinstance(told["server_uuid"], str) or not is_uuid(told["server_uuid"]):
        raise wrong(f"{where}.server_uuid", "it is not a UUID")
    if told.get("status", STATUSES[0]) not in STATUSES:
        raise wrong(f"{where}.status", f"it is none of {', '.join(STATUSES)}")
    tag = told.get("tag", "")
    if not isinstance(tag, str) or len(tag) > LONGEST_TAG:
        raise wrong(f"{where}.tag", f"it is not a text of at most {LONGEST_TAG} characters")
    return ExternalEvent(
        name=told["name"], vm=told["server_uuid"].lower(), port=tag, status=told.get("status", STATUSES[0])
    )
