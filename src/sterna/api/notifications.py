"""`/v1/notifications`: the endpoints of the settings, how deliveries to them get on, and tests of them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.problems import documented
from sterna.controller.notifications.notifications import EndpointState, Tested
from sterna.domain.access import Action
from sterna.domain.notifications.events import EventType

router = APIRouter(prefix="/v1", tags=["notifications"])


class EndpointOut(BaseModel):
    """One endpoint, and how deliveries to it get on. Neither its path nor its secret is shown."""

    name: str = Field(examples=["pager"])
    server: str | None = Field(
        description="Its address without the path. Null: it is not in the settings of the controller that answers."
    )
    events: list[EventType] = Field(description="Which events are written for it.")
    since: str | None = Field(description="Events from then on are for it. ISO 8601 UTC. Null: not known yet.")
    pending: int = Field(description="Notifications that wait for it.")
    oldest_at: str | None = Field(description="When the oldest of these was written. Null where none waits.")
    last_success_at: str | None = Field(description="When it last accepted one. Null: never.")
    last_error: str | None = Field(description="Why the last try failed that did. Null: none has.")
    last_error_at: str | None = Field(description="When that was.")
    failing: bool = Field(description="Something waits, and the last try failed.")

    @classmethod
    def of(cls, state: EndpointState) -> EndpointOut:
        """From the controller's."""
        record = state.record
        return cls(
            name=record.name,
            server=state.server or None,
            events=list(record.events),
            since=record.since or None,
            pending=record.pending,
            oldest_at=record.oldest_at or None,
            last_success_at=record.last_success_at or None,
            last_error=record.last_error or None,
            last_error_at=record.last_error_at or None,
            failing=bool(record.pending) and record.last_error_at > record.last_success_at,
        )


class EndpointsOut(BaseModel):
    """All endpoints, by name."""

    endpoints: list[EndpointOut]


class TestIn(BaseModel):
    """Which endpoints to test."""

    __test__ = False  # not a test of pytest's
    model_config = ConfigDict(extra="forbid")
    name: str | None = Field(default=None, max_length=32, description="Only this one. Null: all of the settings.")


class TestedOut(BaseModel):
    """What one endpoint has answered."""

    __test__ = False
    name: str
    server: str = Field(description="Its address without the path.")
    accepted: bool = Field(description="It answered with a status from 200 to 299.")
    status: int | None = Field(description="HTTP status of its answer. Null where none came.")
    answer: str = Field(description="The beginning of the answer's body.")
    error: str | None = Field(description="Why no answer came.")
    took_s: float = Field(description="How long it took to answer.")

    @classmethod
    def of(cls, tested: Tested) -> TestedOut:
        """From the controller's."""
        return cls(**tested.model_dump(exclude={"error"}), error=tested.error or None)


class TestsOut(BaseModel):
    """What the endpoints have answered, in the order of the settings."""

    __test__ = False
    tested: list[TestedOut]


@router.get("/notifications", summary="List endpoints of notifications", dependencies=[needs(Action.READ)])
async def list_endpoints(controller: Served) -> EndpointsOut:
    """Those of the settings, and those that other controllers had in theirs in the last day."""
    return EndpointsOut(endpoints=[EndpointOut.of(one) for one in await controller.notifications.states()])


@router.post("/notifications/test", summary="Send a test notification", dependencies=[needs(Action.NOTIFY)],
             responses=documented(404, 422))  # fmt: skip
async def test_endpoints(wanted: TestIn, controller: Served) -> TestsOut:
    """The controller that answers calls the endpoints itself, at once and one time, for at most 30 s. What waits
    for them is not affected. 404 where its settings have no endpoint of that name."""
    return TestsOut(tested=[TestedOut.of(one) for one in await controller.notifications.test(wanted.name)])


test_endpoints.__test__ = False  # type: ignore[attr-defined]
