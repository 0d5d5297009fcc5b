"""`/os-server-external-events`: where Neutron's notifier posts what it has done, in the shape Nova serves.

Point it here by a catalog entry of type `compute` (or `[nova]` in neutron.conf) where no Nova runs. Migrations do
not depend on it: an event names no host, and the destination's switch knows earlier (ADR 11).
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.problems import documented
from sterna.controller.controller import Controller
from sterna.controller.intents.external_events import ExternalEvent
from sterna.domain.access import Action

router = APIRouter(tags=["openstack"], dependencies=[needs(Action.HINT)])
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
MOST_EVENTS = 200
"""In one request; Neutron gathers those of a few seconds."""


class EventIn(BaseModel):
    """One event. Fields that this version does not know are ignored, as Nova does."""

    model_config = ConfigDict(extra="ignore")
    name: Annotated[str, Field(pattern=r"^[a-z-]{1,64}$")]
    server_uuid: Id
    tag: Id | None = Field(default=None, description="The port.")
    status: Literal["completed", "failed", "in-progress"] = "completed"


class EventsIn(BaseModel):
    """What the notifier posts."""

    model_config = ConfigDict(extra="ignore")
    events: list[EventIn] = Field(min_length=1, max_length=MOST_EVENTS)


class EventOut(EventIn):
    """The same, with its result."""

    code: int


class EventsOut(BaseModel):
    """The answer Neutron reads."""

    events: list[EventOut]


@router.post("/v2.1/os-server-external-events", summary="Receive events of wired ports", responses=documented(503))
@router.post("/os-server-external-events", include_in_schema=False)
async def take_external_events(wanted: EventsIn, controller: Served) -> EventsOut:
    """Passed on to every agent as a hint; each is answered 200, also one about a server without a migration. The
    role `neutron` may post them as well."""
    return await take_events(wanted, controller)


async def take_events(wanted: EventsIn, controller: Controller) -> EventsOut:
    """The same, for the Compute API."""
    for event in wanted.events:
        report = ExternalEvent(name=event.name, vm=event.server_uuid, port=event.tag or "", status=event.status)
        await controller.external_event(report)
    return EventsOut(events=[EventOut(**event.model_dump(), code=200) for event in wanted.events])
