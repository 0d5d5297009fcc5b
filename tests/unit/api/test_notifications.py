"""`/v1/notifications`: the endpoints, and tests of them."""

from __future__ import annotations

import pytest

from sterna.controller.notifications.endpoint import Chosen
from sterna.domain.access import UserRole
from sterna.domain.errors import Unreachable
from sterna.domain.notifications.events import CHOSEN

from ..controller.conftest import World
from ..controller.receiving import Receiver
from .clients import client, served
from .rest import Api


def with_endpoint(world: World) -> Receiver:
    receiver = Receiver()
    world.controller.notifications.use([Chosen("pager", "https://pager.example", CHOSEN)], receiver)
    return receiver


async def test_endpoints_and_how_they_get_on(api: Api) -> None:
    assert await api.get("/v1/notifications") == {"endpoints": []}
    receiver, notifications = with_endpoint(api.world), api.world.controller.notifications
    (known,) = (await api.get("/v1/notifications"))["endpoints"]
    assert (known["name"], known["server"], known["since"]) == ("pager", "https://pager.example", None)
    await notifications.register()
    await api.world.fleet.note_reach("a", True, api.world.clock.now().isoformat())
    receiver.answers = lambda _: Unreachable("pager.example cannot be called: refused")
    await notifications._delivering[0].look()
    (known,) = (await api.get("/v1/notifications"))["endpoints"]
    assert (known["pending"], known["failing"], known["last_success_at"]) == (1, True, None)
    assert known["last_error"] == "pager.example cannot be called: refused" and known["oldest_at"]
    receiver.answers = lambda _: 200
    api.world.clock.ms += 10_000
    await notifications._delivering[0].look()
    (known,) = (await api.get("/v1/notifications"))["endpoints"]
    assert (known["pending"], known["failing"], known["oldest_at"]) == (0, False, None)
    assert known["last_success_at"] and known["last_error"]


async def test_a_test_says_what_was_answered(api: Api) -> None:
    receiver = with_endpoint(api.world)
    answer = (await api.http.post("/v1/notifications/test", json={})).json()
    (tested,) = answer["tested"]
    assert tested | {"took_s": 0} == {
        "name": "pager",
        "server": "https://pager.example",
        "accepted": True,
        "status": 204,
        "answer": "as you like",
        "error": None,
        "took_s": 0,
    }
    assert [one.type for one in receiver.tries] == ["test"]
    await api.problem("POST", "/v1/notifications/test", 404, json={"name": "chat"})
    await api.problem("POST", "/v1/notifications/test", 422, json={"endpoint": "pager"})


@pytest.mark.parametrize(("role", "status"), [(UserRole.VIEWER, 403), (UserRole.OPERATOR, 200)])
async def test_operators_may_test(world: World, role: UserRole, status: int) -> None:
    async with client(served(world.controller), role) as http:
        assert (await http.post("/v1/notifications/test", json={})).status_code == status
        assert (await http.get("/v1/notifications")).status_code == 200


async def test_the_numbers_are_in_the_metrics(world: World) -> None:
    with_endpoint(world)
    await world.controller.notifications.register()
    await world.fleet.note_reach("a", True, world.clock.now().isoformat())
    found = {one.metric.name: dict(one.samples) for one in [await world.controller.notifications.pending()]}
    assert found == {"sterna_notifications_pending": {("pager",): 1.0}}
    await world.controller.notifications._delivering[0].look()
    sent = dict(world.controller.notifications.sent().samples)
    assert sent == {("pager", "delivered"): 1.0, ("pager", "failed"): 0.0, ("pager", "given_up"): 0.0}
