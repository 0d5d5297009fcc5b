"""`/os-server-external-events`, as `sterna.api.external_events` serves it at the root, for users of a cloud."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from sterna.api.compute.call import Asking, rule
from sterna.api.compute.reading import json_body, wrong
from sterna.api.external_events import EventsIn, take_events
from sterna.domain.compute.policies import Rule

router = APIRouter(prefix="/v2.1/os-server-external-events")


@router.post("", dependencies=[rule(Rule.EVENTS)])
async def take(request: Request, call: Asking) -> dict[str, Any]:
    """Each is passed on to the agents as a hint, and answered 200, also one about a server that nobody moves."""
    try:
        wanted = EventsIn.model_validate(await json_body(request))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise wrong(".".join(map(str, first["loc"])), first["msg"]) from error
    return (await take_events(wanted, call.controller)).model_dump()
