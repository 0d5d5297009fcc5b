"""`/v1/operations`: what it takes, what it answers, and who may ask for it."""

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

DRAIN: dict[str, Any] = {"id": OPERATION, "hosts": ["a"], "reason": "new fans"}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    await stage.refresh()
    yield stage
    await stage.controller.stop()


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(served(stage.controller), UserRole.OPERATOR, raises=False) as http:
        yield http


async def test_a_drain_from_request_to_undo(stage: Stage, http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/operations", json=DRAIN)
    assert (answer.status_code, answer.headers["location"]) == (202, PATH)
    begun = answer.json()
    assert (begun["id"], begun["kind"], begun["hosts"], begun["status"]) == (OPERATION, "drain", ["a"], "running")
    assert (begun["requested_by"], begun["reason"], begun["closed_hosts"]) == ("token:operator", "new fans", ["a"])
    assert (await post(http, "/v1/operations", 200, DRAIN))["id"] == OPERATION
    host = await get(http, "/v1/hosts/a")
    assert host["maintenance_reason"] == "operation bbbbbbbb of token:operator: new fans"
    await stage.tick()
    await stage.tick()
    shown = await get(http)
    assert (shown["running"], shown["waiting"], shown["left"]) == (2, 1, 0)
    assert (await get(http, PATH.upper().replace("/V1/OPERATIONS", "/v1/operations")))["id"] == OPERATION
    assert [(one["vm_name"], one["state"]) for one in shown["moves"]] == [("x1", "started"), ("x2", "started")]
    assert [one["vm_name"] for one in shown["waits"]] == ["x3"] and shown["waits"][0]["reason"]
    assert shown["promised_end_s"] > 0 and shown["seen_at"] and shown["ended_at"] is None
    await stage.run()
    done = await get(http)
    assert (done["status"], done["promised_end_s"], done["waits"], done["stays"]) == ("done", None, [], [])
    assert done["ended_at"] and {one["state"] for one in done["moves"]} == {"arrived"}
    preview = await get(http, f"{PATH}/undo")
    back = {(one["vm_name"], one["destination"], one["purpose"]) for one in preview["moves"]}
    assert back == {(name, "a", "bring back") for name in ("x1", "x2", "x3")} and preview["stays"] == []
    assert (await get(http, "/v1/hosts/a"))["maintenance"], "a preview changes nothing"
    undoing = await post(http, f"{PATH}/undo", 202)
    assert (undoing["status"], undoing["changed_by"], undoing["ended_at"]) == ("undoing", "token:operator", None)
    assert not (await get(http, "/v1/hosts/a"))["maintenance"]
    await stage.run()
    assert (await get(http))["status"] == "undone"


async def test_it_can_be_paused_resumed_and_stopped(stage: Stage, http: httpx2.AsyncClient) -> None:
    await post(http, "/v1/operations", 202, DRAIN)
    for order, status in (("pause", "paused"), ("resume", "running"), ("stop", "stopping"), ("stop", "stopping")):
        assert (await post(http, f"{PATH}/{order}", 202))["status"] == status
    problem = await post(http, f"{PATH}/resume", 409)
    assert problem["detail"] == "an operation that is stopping cannot be changed with resume"
    await stage.run()
    assert (await get(http))["status"] == "stopped"


async def test_a_host_that_is_being_emptied_is_not_opened_by_hand(http: httpx2.AsyncClient) -> None:
    await post(http, "/v1/operations", 202, DRAIN)
    answer = await http.patch("/v1/hosts/a", json={"maintenance": False})
    assert answer.status_code == 409, answer.text
    assert answer.json()["detail"] == f"operation {OPERATION} is emptying a: it is running"
    assert (await get(http, "/v1/hosts/a"))["maintenance"]


async def test_a_vm_that_stays_has_its_reason(stage: Stage, http: httpx2.AsyncClient) -> None:
    for name in "bc":
        stage.bus.agents[name].listening = False
    stage.clock.ms += 10_000
    await stage.refresh()
    preview = await post(http, "/v1/operations/preview", 200, DRAIN)
    assert [one["vm_name"] for one in preview["stays"]] == ["x1", "x2", "x3"]
    assert {one["reason"].partition(" fits")[2] for one in preview["stays"]} == {
        " none of 2 other hosts: 2 unreachable"
    }


async def test_a_preview_changes_nothing(stage: Stage, http: httpx2.AsyncClient) -> None:
    preview = await post(http, "/v1/operations/preview", 200, DRAIN | {"finish_within_s": 5})
    assert [one["vm_name"] for one in preview["moves"]] == ["x1", "x2", "x3"]
    assert {one["source"] for one in preview["moves"]} == {"a"}
    assert 0 < preview["least_s"] <= preview["expected_s"] <= preview["promised_s"]
    assert preview["late_s"] == pytest.approx(preview["promised_s"] - 5)
    assert (await get(http, "/v1/operations"))["operations"] == []
    assert not (await get(http, "/v1/hosts/a"))["maintenance"]


async def test_a_deadline_that_would_be_missed_is_refused(stage: Stage, http: httpx2.AsyncClient) -> None:
    late = DRAIN | {"finish_within_s": 5}
    problem = await post(http, "/v1/operations", 422, late)
    (reason,) = problem["reasons"]
    assert reason["code"] == "deadline-missed" and " more than allowed" in reason["message"]
    assert (await post(http, "/v1/operations", 202, late | {"even_if_late": True}))["finish_within_s"] == 5


async def test_what_is_not_there_or_makes_no_sense(stage: Stage, http: httpx2.AsyncClient) -> None:
    await get(http, status=404)
    await get(http, f"{PATH}/undo", 404)
    await post(http, f"{PATH}/stop", 404)
    await post(http, "/v1/operations", 404, {"hosts": ["z"]})
    await post(http, "/v1/operations/preview", 404, {"hosts": ["z"]})
    wrongs = {"hosts": [], "kind": "explode", "finish_within_s": 0, "id": "1", "colour": "blue"}
    for name, wrong in wrongs.items():
        await post(http, "/v1/operations", 422, DRAIN | {name: wrong})
    problem = await post(http, "/v1/operations", 422, DRAIN | {"policy": "brutal"})
    assert problem["reasons"][0]["code"] == "policy-unknown"
    await post(http, "/v1/operations", 202, DRAIN)
    await post(http, "/v1/operations", 409, DRAIN | {"hosts": ["b"]})
    await post(http, "/v1/operations", 409, {"hosts": ["a", "b"]})


async def test_operations_are_listed_in_pages(stage: Stage, http: httpx2.AsyncClient) -> None:
    for host in "abc":
        await post(http, "/v1/operations", 202, {"hosts": [host]})
    first = await get(http, "/v1/operations?limit=2")
    assert [one["hosts"] for one in first["operations"]] == [["c"], ["b"]]
    second = await get(http, f"/v1/operations?limit=2&cursor={first['next_cursor']}")
    assert [one["hosts"] for one in second["operations"]] == [["a"]] and second["next_cursor"] is None
    id = second["operations"][0]["id"]
    await post(http, f"/v1/operations/{id}/pause", 202)
    assert [one["id"] for one in (await get(http, "/v1/operations?status=paused"))["operations"]] == [id]
    assert [one["id"] for one in (await get(http, f"/v1/operations?id={id[:12].upper()}"))["operations"]] == [id]
    await get(http, "/v1/operations?cursor=nonsense", 400)
    await get(http, "/v1/operations?status=nonsense", 422)


async def test_a_viewer_may_look_and_nothing_else(stage: Stage, http: httpx2.AsyncClient) -> None:
    await post(http, "/v1/operations", 202, DRAIN)
    async with client(served(stage.controller), UserRole.VIEWER, raises=False) as viewer:
        assert (await get(viewer))["id"] == OPERATION
        assert (await get(viewer, "/v1/operations"))["operations"]
        for path in ("/v1/operations", "/v1/operations/preview", f"{PATH}/stop", f"{PATH}/undo", f"{PATH}/pause"):
            await post(viewer, path, 403, DRAIN)
    assert (await get(http))["status"] == "running"


async def test_terminal_controls_in_a_reason_are_harmless(stage: Stage, http: httpx2.AsyncClient) -> None:
    begun = await post(http, "/v1/operations", 202, DRAIN | {"reason": "new \x1b[31mfans"})
    assert begun["reason"] == "new \\x1b[31mfans"
