"""`/v1/vms/{vm}/placement` and `/v1/queue`: where a VM could go, and what waits and why."""

from __future__ import annotations

from typing import Any

import httpx2

from sterna.domain.access import UserRole
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from tests.unit.api.clients import bearing
from tests.unit.api.ruled_fleet import DRAIN, PATH, ask, http, migrate, put, stage
from tests.unit.controller.operating import OPERATION, Stage, X

__all__ = ["http", "stage"]
OTHER = OPERATION.replace("0001", "0002")


async def queue(http: httpx2.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    return list((await ask(http, "GET", f"/v1/queue?{query}", 200))["waits"])


def named(waits: list[dict[str, Any]]) -> list[str]:
    return [one["vm_name"] for one in waits]


# ------------------------------------------------------------ where a VM could go


async def test_every_host_is_ranked_with_what_keeps_the_vm_away(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "slow", kind="never-on", vms=["x1"], hosts=["b"])
    await ask(http, "PATCH", "/v1/hosts/b", 200, {"maintenance": True, "reason": "new fans"})
    calls = len(stage.bus.calls)
    answer = await ask(http, "GET", "/v1/vms/x1/placement", 200)
    assert (answer["vm"]["uuid"], answer["vm"]["host"], answer["stays"]) == (X["x1"], "a", None)
    best, other = answer["hosts"]
    assert (best["host"], best["refusals"]) == ("c", [])
    assert best["score"] > 0 and best["words"] == "leaves 14.5 GiB and 63 vCPUs"
    assert (other["host"], other["score"], other["words"]) == ("b", None, "")
    assert other["refusals"] == ["the host is closed: new fans", "it is forbidden by the rule slow"]
    asked = {method for _, method, _ in stage.bus.calls[calls:]}
    assert asked <= {"list_vms"}  # of agents that do not tell by themselves


async def test_what_is_on_its_way_takes_room(stage: Stage, http: httpx2.AsyncClient) -> None:
    await migrate(http, "x2", "c", 202)
    answer = await ask(http, "GET", "/v1/vms/x1/placement", 200)
    assert {one["host"]: one["words"] for one in answer["hosts"]} == {
        "b": "leaves 14.5 GiB and 63 vCPUs",
        "c": "leaves 13.5 GiB and 62 vCPUs",
    }


async def test_a_vm_that_cannot_be_moved_says_why(stage: Stage, http: httpx2.AsyncClient) -> None:
    stage.set_state("x1", GuestState.PAUSED)
    await put(http, "dongle", kind="never-move", vms=["x2"], reason="USB")
    id = (await migrate(http, "x3", "b", 202))["id"]
    for vm, why in (
        ("x1", "x1 cannot be migrated: it is paused"),
        ("x2", "a rule keeps x2 on a: dongle (USB)"),
        ("x3", f"x3 is in migration {id} already"),
    ):
        assert (await ask(http, "GET", f"/v1/vms/{vm}/placement", 200))["stays"] == why
    await ask(http, "GET", "/v1/vms/nobody/placement", 404)


# ------------------------------------------------------------ what waits


async def test_what_an_operation_waits_with_is_in_the_queue(stage: Stage, http: httpx2.AsyncClient) -> None:
    assert await ask(http, "GET", "/v1/queue", 200) == {"waits": [], "unplanned": [], "next_cursor": None}
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    new = await ask(http, "GET", "/v1/queue", 200)
    assert new["waits"] == []
    assert new["unplanned"] == [{"operation_id": OPERATION, "reason": "no controller has planned it yet"}]
    await stage.tick()
    await stage.tick()
    waits = await queue(http)
    assert named(waits)[-1] == "x3" and waits[-1]["operation_id"] == OPERATION
    assert (waits[-1]["source"], waits[-1]["migration_id"]) == ("a", None)
    assert waits[-1]["reason"] == "the link out of a already carries 2 copies: x1, x2"
    for migration in stage.open():
        stage.set_status(migration, Status.MIGRATING)
    await stage.tick()
    assert named(await queue(http)) == ["x3"]
    assert await queue(http, "host=c&operation=" + OTHER) == []
    assert named(await queue(http, f"host=a&operation={OPERATION.upper()}")) == ["x3"]
    await ask(http, "POST", f"{PATH}/pause", 202)
    await stage.tick()
    assert [one["reason"] for one in await queue(http)] == ["the operation is paused"]
    await ask(http, "POST", f"{PATH}/stop", 202)
    await stage.tick()
    assert await queue(http) == []


async def test_a_reason_that_nobody_has_looked_at_for_long_says_so(stage: Stage, http: httpx2.AsyncClient) -> None:
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    await stage.tick()
    await stage.tick()
    stage.clock.ms += 31_000
    (*_, last) = await queue(http)
    assert last["reason"].startswith("no controller has checked operation bbbbbbbb since 2026-01-01T00:16:4")
    assert "; before that: the link out of a already carries 2 copies" in last["reason"]


async def test_a_single_migration_that_has_not_begun_comes_first(stage: Stage, http: httpx2.AsyncClient) -> None:
    stage.bus.agents["b"].add_vm("y1", 9)
    await stage.refresh()
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    await stage.tick()
    single = await migrate(http, "y1", "c", 202)
    await stage.tick()
    first, *rest = await queue(http)
    assert (first["vm_name"], first["operation_id"], first["migration_id"]) == ("y1", None, single["id"])
    assert first["reason"] == "b has accepted it, but has not started" and first["seen_at"]
    assert {one["operation_id"] for one in rest} == {OPERATION}
    assert named(rest) == ["x1", "x2", "x3"]
    assert [one["migration_id"] is None for one in rest] == [False, False, True]


async def test_the_queue_is_read_in_pages(stage: Stage, http: httpx2.AsyncClient) -> None:
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    await stage.tick()
    await stage.tick()
    seen, cursor = list[str](), ""
    for _ in range(3):
        page = await ask(http, "GET", f"/v1/queue?limit=1{cursor}", 200)
        seen += named(page["waits"])
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["x1", "x2", "x3"] and page["next_cursor"] is None
    first = await ask(http, "GET", "/v1/queue?limit=1", 200)
    stage.complete_all()
    await stage.tick()
    assert named(await queue(http, f"cursor={first['next_cursor']}")) == ["x3"]
    await ask(http, "GET", "/v1/queue?cursor=nonsense", 400)


async def test_viewers_may_read_both(http: httpx2.AsyncClient) -> None:
    for path in ("/v1/queue", "/v1/vms/x1/placement"):
        assert (await http.get(path, headers=bearing(UserRole.VIEWER))).status_code == 200
