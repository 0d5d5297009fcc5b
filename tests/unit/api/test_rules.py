"""`/v1/rules`: what it takes and answers, and that drains and single migrations keep rules."""

from __future__ import annotations

from typing import Any

import httpx2

from sterna.domain.access import UserRole
from tests.unit.api.clients import bearing
from tests.unit.api.ruled_fleet import DRAIN, PATH, ask, http, migrate, put, stage
from tests.unit.controller.operating import OPERATION, Stage, X

__all__ = ["http", "stage"]
APART: dict[str, Any] = {"kind": "apart", "vms": ["x1", "x2"], "reason": "two of three must run"}


def codes(problem: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in problem["reasons"]]


# ------------------------------------------------------------ written and read


async def test_a_rule_from_its_creation_to_its_removal(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/rules", json={"name": "web"} | APART)
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/rules/web")
    made = answer.json()
    assert (made["kind"], made["vms"], made["hosts"]) == ("apart", ["x1", "x2"], [])
    assert (made["scope"], made["priority"], made["changed_by"]) == ("host", None, "token:admin")
    assert made["problems"] == ["it is broken: x1, x2 are on a"]
    assert await ask(http, "GET", "/v1/rules/web", 200) == made
    assert await ask(http, "POST", "/v1/rules", 200, {"name": "web"} | APART) == made
    assert await put(http, "web", 200, **APART) == made
    taken = await ask(http, "POST", "/v1/rules", 409, {"name": "web"} | APART | {"vms": ["x1", "x3"]})
    assert "there is another rule web, of the kind apart" in taken["detail"]
    replaced = await put(http, "web", 200, kind="priority", vms=["x1"], priority=5)
    assert (replaced["kind"], replaced["priority"], replaced["scope"]) == ("priority", 5, None)
    assert (await ask(http, "DELETE", "/v1/rules/web", 200))["name"] == "web"
    for method in ("GET", "DELETE"):
        await ask(http, method, "/v1/rules/web", 404)


async def test_what_makes_no_sense_is_refused_with_a_fix(http: httpx2.AsyncClient) -> None:
    for wrong in ({"vms": ["x1"]}, {"hosts": ["a"]}, {"priority": 1}):
        problem = await put(http, "web", 400, **APART | wrong)
        assert problem["reasons"][0]["fix"]
    for invalid in ({"kind": "sometimes"}, {"priority": 1001}, {"colour": "red"}, {"vms": [""]}, {"scope": "rack"}):
        await put(http, "web", 422, **APART | invalid)
    await put(http, "no%20name", 422, **APART)
    await put(http, "web", **APART)
    contradicts = await put(http, "pair", 409, kind="together", vms=["x2", "x1"])
    assert contradicts["detail"] == "the rule web keeps x1 and x2 apart"


async def test_a_rule_outlives_its_vms_and_says_which_there_are_not(stage: Stage, http: httpx2.AsyncClient) -> None:
    made = await put(http, "web", kind="only-on", vms=["later", X["x1"].upper()], hosts=["a", "host9"])
    assert made["vms"] == sorted([X["x1"], "later"])
    assert made["problems"] == ["there is no host host9", "there is no VM later"]
    stage.bus.agents["b"].add_vm("later", 7)
    await stage.refresh()
    shown = await ask(http, "GET", "/v1/rules/web", 200)
    assert shown["problems"] == ["there is no host host9", "it is broken: later is on b"]


async def test_rules_are_listed_in_pages_and_filtered(http: httpx2.AsyncClient) -> None:
    await put(http, "apart", **APART)
    await put(http, "dongle", kind="never-move", vms=[X["x1"]])
    await put(http, "rack", kind="failure-domain", hosts=["a", "b"])

    async def names(query: str) -> list[str]:
        return [rule["name"] for rule in (await ask(http, "GET", f"/v1/rules?{query}", 200))["rules"]]

    assert await names("") == ["apart", "dongle", "rack"]
    assert await names("kind=apart&kind=never-move") == ["apart", "dongle"]
    assert await names("vm=x1") == await names(f"vm={X['x1'].upper()}") == ["apart", "dongle"]
    assert (await names("vm=x3"), await names("host=b")) == ([], ["rack"])
    first = await ask(http, "GET", "/v1/rules?limit=2", 200)
    assert [one["name"] for one in first["rules"]] == ["apart", "dongle"]
    assert await names(f"cursor={first['next_cursor']}") == ["rack"]
    await ask(http, "GET", "/v1/rules?cursor=nonsense", 400)


async def test_viewers_read_and_administrators_write_which_is_logged(http: httpx2.AsyncClient) -> None:
    for role in (UserRole.VIEWER, UserRole.OPERATOR):
        for method, path in (("PUT", "/v1/rules/web"), ("POST", "/v1/rules"), ("DELETE", "/v1/rules/web")):
            answer = await http.request(method, path, json={"name": "web"} | APART, headers=bearing(role))
            assert answer.status_code == 403, answer.text
        assert (await http.get("/v1/rules", headers=bearing(role))).status_code == 200
    await put(http, "web", **APART | {"vms": [f"vm{n}" for n in range(1000)]})
    await ask(http, "DELETE", "/v1/rules/web", 200)
    lines = (await ask(http, "GET", "/v1/log?action=rules&target=web&actor=token:admin", 200))["lines"]
    assert [(one["status"], one["body"].get("kind")) for one in lines] == [(200, None), (201, "apart")]
    assert len(lines[1]["body"]["vms"]) == 1000


# ------------------------------------------------------------ single migrations


async def test_a_migration_that_breaks_a_rule_is_refused_unless_it_is_asked_for(
    stage: Stage, http: httpx2.AsyncClient
) -> None:
    await put(http, "slow", kind="never-on", vms=["x1"], hosts=["b"])
    problem = await migrate(http, "x1", "b", 422)
    (reason,) = problem["reasons"]
    assert (reason["code"], reason["message"]) == ("placement-rule", "the rule slow keeps x1 off b")
    assert "--ignore-rules" in reason["fix"]
    plan = await ask(http, "POST", "/v1/plans", 200, {"vm": "x1", "destination": "b"})
    assert codes({"reasons": plan["blockers"]}) == ["placement-rule"]
    plan = await ask(http, "POST", "/v1/plans", 200, {"vm": "x1", "destination": "b", "ignore_rules": True})
    assert plan["blockers"] == []
    assert (await migrate(http, "x1", "b", 202, ignore_rules=True))["destination"] == "b"
    assert {migration.destination for migration in stage.open()} == {"b"}


async def test_without_a_destination_hosts_that_a_rule_forbids_are_passed_over(
    stage: Stage, http: httpx2.AsyncClient
) -> None:
    stage.bus.agents["b"].free *= 2
    await stage.refresh()
    await put(http, "slow", kind="never-on", vms=["x1"], hosts=["b"])
    assert (await migrate(http, "x1", None, 202))["destination"] == "c"
    await put(http, "nowhere", kind="only-on", vms=["x2"], hosts=["host9"])
    problem = await migrate(http, "x2", None, 422)
    assert [reason["message"] for reason in problem["reasons"]] == [
        "the rule nowhere allows x2 on these hosts only: host9"
    ]
    await put(http, "dongle", kind="never-move", vms=["x3"], reason="USB")
    problem = await migrate(http, "x3", None, 422)
    assert [(reason["code"], reason["message"]) for reason in problem["reasons"]] == [
        ("vm-never-moves", "a rule keeps x3 on a: dongle (USB)")
    ]


async def test_where_others_are_being_moved_counts_as_well(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "web", **APART)
    await migrate(http, "x1", "b", 202)
    problem = await migrate(http, "x2", "b", 422)
    assert problem["detail"] == "the rule web keeps x2 apart from x1, which is being moved to b"
    assert (await migrate(http, "x2", None, 202))["destination"] == "c"


async def test_vms_are_kept_apart_on_failure_domains(http: httpx2.AsyncClient) -> None:
    await put(http, "rack", kind="failure-domain", hosts=["b", "c"])
    await put(http, "web", **APART | {"scope": "failure-domain"})
    await migrate(http, "x1", "b", 202)
    problem = await migrate(http, "x2", "c", 422)
    assert "apart from x1, which is being moved to b" in problem["detail"]


async def test_all_reasons_are_given_at_once(http: httpx2.AsyncClient) -> None:
    await put(http, "slow", kind="never-on", vms=["x1"], hosts=["b"])
    await ask(http, "PATCH", "/v1/hosts/b", 200, {"maintenance": True})
    assert codes(await migrate(http, "x1", "b", 422)) == ["destination-in-maintenance", "placement-rule"]
    assert codes(await migrate(http, "x1", "a", 422)) == ["same-host"]


# ------------------------------------------------------------ drains


async def test_a_drain_keeps_rules(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "web", **APART)
    await put(http, "dongle", kind="never-move", vms=["x3"], reason="USB")
    preview = await ask(http, "POST", "/v1/operations/preview", 200, DRAIN)
    assert {one["destination"] for one in preview["moves"]} == {"b", "c"}
    assert [one["reason"] for one in preview["stays"]] == ["a rule keeps x3 on a: dongle (USB)"]
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    await stage.run()
    shown = await ask(http, "GET", PATH, 200)
    assert (shown["status"], [one["reason"] for one in shown["stays"]]) == (
        "incomplete",
        ["a rule keeps x3 on a: dongle (USB)"],
    )
    places = stage.places()
    assert {places["x1"], places["x2"]} == {"b", "c"} and places["x3"] == "a"


async def test_who_has_priority_moves_first(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "first", kind="priority", vms=["x3"], priority=10)
    preview = await ask(http, "POST", "/v1/operations/preview", 200, DRAIN)
    assert [one["vm_name"] for one in preview["moves"]] == ["x3", "x1", "x2"]


async def test_a_rule_that_changes_leads_to_a_new_plan_at_once(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "only", kind="only-on", vms=["x1", "x2", "x3"], hosts=["a", "b"])
    await ask(http, "POST", "/v1/operations", 202, DRAIN)
    await stage.tick()
    await stage.tick()
    running = {migration.vm_name: migration.destination for migration in stage.open()}
    assert running == {"x1": "b", "x2": "b"}
    (waits,) = (await ask(http, "GET", PATH, 200))["waits"]
    assert (waits["vm_name"], waits["destination"]) == ("x3", "b")
    await put(http, "only", 200, kind="only-on", vms=["x3"], hosts=["a", "c"])
    await stage.tick()
    (waits,) = (await ask(http, "GET", PATH, 200))["waits"]
    assert (waits["vm_name"], waits["destination"]) == ("x3", "c")
    await stage.run()
    assert stage.places() == {"x1": "b", "x2": "b", "x3": "c"}


async def test_hosts_that_are_not_to_be_down_together(stage: Stage, http: httpx2.AsyncClient) -> None:
    await put(http, "quorum", kind="not-down-together", hosts=["a", "b", "host9"])
    both = DRAIN | {"hosts": ["a", "b"]}
    for path in ("/v1/operations", "/v1/operations/preview"):
        problem = await ask(http, "POST", path, 422, both)
        assert codes(problem) == ["hosts-down-together"] and "--ignore-host-rules" in problem["reasons"][0]["fix"]
    await ask(http, "PATCH", "/v1/hosts/b", 200, {"maintenance": True})
    problem = await ask(http, "POST", "/v1/operations", 422, DRAIN)
    assert problem["detail"] == "the rule quorum keeps a, b from being down together; b is in maintenance"
    await ask(http, "POST", "/v1/operations/preview", 200, DRAIN | {"ignore_host_rules": True})
    assert (await ask(http, "POST", "/v1/operations", 202, DRAIN | {"ignore_host_rules": True}))["hosts"] == ["a"]
    assert (await ask(http, "POST", "/v1/operations", 200, DRAIN))["id"] == OPERATION
