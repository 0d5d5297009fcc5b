"""What matrix, stories and saga tests ask an agent for is what the REST API sends it, no more and no less."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.forecast import Load
from tests.asking import to_check, to_start, wish
from tests.matrix.scripts import WISHES
from tests.saga.fleet import SimFleet
from tests.unit.api.rest import Api, body
from tests.unit.controller.requests import ID

from ..controller.fakes import uuid


def sent(api: Api, method: str) -> dict[str, Any]:
    """What the source's agent was asked, whatever else it was."""
    return next(dict(params) for _, asked, params in api.world.bus.calls if asked == method)


@pytest.mark.parametrize("kind", WISHES)
async def test_a_migration_is_asked_for_with_the_same_words(api: Api, kind: str) -> None:
    answer = await api.http.post("/v1/migrations", json=body(**WISHES[kind]))
    assert answer.status_code == 202, answer.text
    asked = to_start(
        uuid(1), "b", wish(WISHES[kind]), source="a", migration=ID, name="web1", requested_by="token:admin"
    )
    assert sent(api, "start_migration") == asked


@pytest.mark.parametrize("kind", WISHES)
async def test_so_is_a_plan(api: Api, kind: str) -> None:
    answer = await api.http.post("/v1/plans", json={"vm": "web1", "destination": "b", **WISHES[kind]})
    assert answer.status_code == 200, answer.text
    wanted = to_check(uuid(1), "b", wish(WISHES[kind]), source="a")
    checks = [params for _, method, params in api.world.bus.calls if method == "check_migration"]
    assert checks and all(params == wanted for params in checks)


@pytest.mark.parametrize("how", ["prepare", "copy"])
async def test_so_is_a_rehearsal(api: Api, how: str) -> None:
    told = {"vm": "web1", "destination": "b", "rehearse": True, "with_copy": how == "copy"}
    await api.http.post("/v1/plans", json=told)
    asked = sent(api, "start_migration")
    load = Load.model_validate(asked["options"]["expectations"]["load"])  # the plan has measured it
    more = {"source": "a", "migration": asked["id"], "name": "web1", "requested_by": "token:admin"}
    assert asked == to_start(uuid(1), "b", rehearse=how, load=load, **more)


async def test_the_simulated_fleet_sends_them() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, heard = fleet.vm(), []
        call = fleet.client.call

        async def listening(host: str, method: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
            heard.append((host, method, params))
            return await call(host, method, params, **more)

        fleet.client.call = listening  # type: ignore[method-assign,assignment]
        await fleet.start(vm)
        assert heard == [("host1", "start_migration", to_start(vm, "host2", migration=fleet.migration))]
        await fleet.ended()
