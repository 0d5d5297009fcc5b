"""`/v1/operations` of the kinds that close no host: `rebalance` and `bring-back`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.access import UserRole
from tests.unit.api.clients import client, served
from tests.unit.api.operating import PATH, get, post
from tests.unit.controller.operating import OPERATION, Stage

REBALANCE: dict[str, Any] = {"id": OPERATION, "kind": "rebalance", "threshold": 0.1}
BACK_ID = "bbbbbbbb-0000-4000-8000-000000000002"
BACK: dict[str, Any] = {"id": BACK_ID, "kind": "bring-back", "hosts": ["a"]}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    yield stage
    await stage.controller.stop()


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx2.AsyncClient]:
    await stage.refresh()
    async with client(served(stage.controller), UserRole.OPERATOR, raises=False) as http:
        yield http


async def test_a_rebalance_is_shown_refused_while_it_is_off_and_carried_out(
    stage: Stage, http: httpx2.AsyncClient
) -> None:
    preview = await post(http, "/v1/operations/preview", 200, REBALANCE)
    assert [(one["source"], one["purpose"]) for one in preview["moves"]] == [("a", "balance")] * 2
    spread = {name: round(share, 2) for name, share in preview["spread"].items()}
    assert spread == {"fullest": 0.19, "emptiest": 0.0, "fullest_after": 0.06, "emptiest_after": 0.06}
    problem = await post(http, "/v1/operations", 422, REBALANCE)
    assert [one["code"] for one in problem["reasons"]] == ["rebalance-off"]
    stage.controller.operate.may_rebalance = True
    begun = await post(http, "/v1/operations", 202, REBALANCE)
    assert (begun["kind"], begun["hosts"], begun["threshold"], begun["to_return"]) == ("rebalance", [], 0.1, None)
    await post(http, "/v1/operations", 200, REBALANCE)
    await post(http, "/v1/operations", 409, REBALANCE | {"threshold": 0.3})
    await stage.run()
    done = await get(http)
    assert (done["status"], len(done["moves"]), done["closed_hosts"]) == ("done", 2, [])


async def test_vms_are_brought_back_to_a_host_that_was_drained(stage: Stage, http: httpx2.AsyncClient) -> None:
    problem = await post(http, "/v1/operations", 422, BACK)
    assert [one["code"] for one in problem["reasons"]] == ["nothing-to-bring-back"]
    await post(http, "/v1/operations", 202, {"id": OPERATION, "hosts": ["a"]})
    await stage.run()
    await http.patch("/v1/hosts/a", json={"maintenance": False})
    preview = await post(http, "/v1/operations/preview", 200, BACK)
    assert {(one["destination"], one["purpose"]) for one in preview["moves"]} == {("a", "return")}
    begun = await post(http, "/v1/operations", 202, BACK)
    assert (begun["kind"], begun["to_return"], begun["threshold"]) == ("bring-back", 3, None)
    await stage.run(id=BACK_ID)
    assert (await get(http, f"/v1/operations/{BACK_ID}"))["status"] == "done"
    assert not (await get(http, "/v1/hosts/a"))["maintenance"]
    assert (await get(http, PATH))["status"] == "done"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"kind": "drain"}, "a drain needs hosts: name at least one"),
        ({"kind": "bring-back"}, "a bring-back needs hosts: name at least one"),
        ({"kind": "drain", "hosts": ["a"], "threshold": 0.3}, "a drain has no threshold: that is for `rebalance`"),
        ({"kind": "rebalance", "most_closed": 2}, "a rebalance has no most_closed: that is for `rolling`"),
        ({"kind": "bring-back", "hosts": ["a"], "finish_within_s": 60}, "a bring-back has no finish_within_s"),
        ({"kind": "rebalance", "threshold": 1.0}, "threshold"),
        ({"kind": "rebalance", "threshold": 0.0}, "threshold"),
        ({"kind": "rebalance", "threshold": "0.2"}, "threshold"),
    ],
)
async def test_what_is_not_of_its_kind_is_refused(http: httpx2.AsyncClient, body: dict[str, Any], why: str) -> None:
    answer = await http.post("/v1/operations/preview", json=body)
    assert answer.status_code == 422 and why in answer.text
