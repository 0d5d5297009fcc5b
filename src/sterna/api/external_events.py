"""`/os-server-external-events`: where Neutron's notifier posts what it has done, in the shape Nova serves.

Point it here by a catalog entry of type `compute` (or `[nova]` in neutron.conf) where no Nova runs. Migrations do
not depend on it: an event names no host, and the destination's switch knows earlier (ADR 11).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.problems import documented
from sterna.domain.access import Action
from sterna.domain.compute.external_events import LONGEST_TAG, ExternalEvent, status_of
from sterna.domain.texts import UUID

router = APIRouter(tags=["openstack"], dependencies=[needs(Action.HINT)])
_TAG = "ID of the port, or of another resource that the event is about."
Name = Literal[
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
    "power-update",
    "accelerator-request-bound",
    "volume-reimaged",
]


class EventIn(BaseModel):
    """One event."""

    model_config = ConfigDict(extra="ignore")
    name: Name
    server_uuid: Annotated[str, Field(pattern=f"^{UUID.pattern}$")]
    tag: Annotated[str | None, Field(max_length=LONGEST_TAG, description=_TAG)] = None
    status: Literal["completed", "failed", "in-progress"] = "completed"


class EventsIn(BaseModel):
    """What the notifier posts."""

    model_config = ConfigDict(extra="ignore")
    events: list[EventIn] = Field(min_length=1)


class EventOut(EventIn):
    """One event with its result."""

    code: int = Field(description="200, 404 (no such VM), 422 (an event that Sterna ignores), 400 (without a tag).")


class EventsOut(BaseModel):
    """The response to Neutron."""

    events: list[EventOut]


_ANSWERS = documented(503) | {
    207: {"model": EventsOut, "description": "At least one event has a code other than 200."}
}


@router.post(
    "/v2.1/os-server-external-events",
    summary="Receive events of wired ports",
    responses=_ANSWERS,
    response_model_exclude_none=True,
)
@router.post("/os-server-external-events", include_in_schema=False, response_model_exclude_none=True)
async def take_external_events(wanted: EventsIn, controller: Served, response: Response) -> EventsOut:
    """Events of ports are passed on to every agent as a hint. Each event gets its own code, as from Nova. The role
    `neutron` may post them as well."""
    reports = [
        ExternalEvent(name=event.name, vm=event.server_uuid.lower(), port=event.tag or "", status=event.status)
        for event in wanted.events
    ]
    codes = await controller.take_events(reports)
    answered = [
        EventOut(**event.model_dump() | {"status": status_of(code)}, code=code)
        for event, code in zip(wanted.events, codes, strict=True)
    ]
    response.status_code = HTTPStatus.OK if set(codes) == {HTTPStatus.OK} else HTTPStatus.MULTI_STATUS
    return EventsOut(events=answered)
