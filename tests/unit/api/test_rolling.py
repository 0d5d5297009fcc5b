"""`/v1/operations` of kind `rolling`: what it takes, what it answers, and who may ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.access import UserRole
from sterna.domain.fleet.stages import Stage
from tests.unit.api.clients import client, served
from tests.unit.api.operating import PATH, get, post
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import HOOK, Rebooting

BY_HAND: dict[str, Any] = {"id": OPERATION, "kind": "rolling", "hosts": ["a", "b"], "between": {"by_hand": True}}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Rebooting]:
    stage = Rebooting.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    assert isinstance(stage, Rebooting)
    await stage.refresh()
    yield stage
    await stage.controller.stop()


@pytest.fixture
async def http(stage: Rebooting) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(served(stage.controller), UserRole.OPERATOR, raises=False) as http:
        yield http


async def test_by_hand_from_request_to_the_end(stage: Rebooting, http: httpx2.AsyncClient) -> None:
    begun = await post(http, "/v1/operations", 202, BY_HAND)
    assert (begun["kind"], begun["hosts"], begun["closed_hosts"]) == ("rolling", ["a", "b"], [])
    assert (begun["most_closed"], begun["of_one_domain"], begun["paused_because"]) == (1, 1, None)
    assert begun["between"] == {
        "webhook": None,
        "command": False,
        "by_hand": True,
        "back_within_s": 1800.0,
        "agent_version": None,
    }
    assert (await post(http, "/v1/operations", 200, BY_HAND))["id"] == OPERATION
    problem = await post(http, f"{PATH}/hosts/a/done", 409)
    assert problem["detail"] == "a cannot be done: its turn has not come"
    await stage.until("b", Stage.BETWEEN)
    shown = await get(http)
    assert [(one["host"], one["wave"], one["stage"], one["reason"]) for one in shown["host_steps"]] == [
        ("b", 0, "between", "nobody has reported yet that b is done"),
        ("a", None, "waiting", None),
    ]
    assert shown["waits_for"] == "nobody has reported yet that b is done" and shown["promised_end_s"] > 0
    for host in "ba":
        await stage.until(host, Stage.BETWEEN)
        await post(http, f"{PATH}/hosts/{host}/done", 202)
        await post(http, f"{PATH}/hosts/{host}/done", 202)
    await stage.run()
    done = await get(http)
    assert done["status"] == "done" and {one["stage"] for one in done["host_steps"]} == {"done"}
    assert {one["done_by"] for one in done["host_steps"]} == {"token:operator"}
    assert (await post(http, f"{PATH}/undo", 202))["status"] == "undoing"


async def test_a_preview_has_waves(stage: Rebooting, http: httpx2.AsyncClient) -> None:
    preview = await post(http, "/v1/operations/preview", 200, BY_HAND)
    assert [wave["hosts"] for wave in preview["waves"]] == [["b"], ["a"]] and preview["skipped"] == {}
    first = preview["waves"][0]
    assert 0 == first["start_s"] <= first["drained_s"] < first["open_s"]
    drain = await post(http, "/v1/operations/preview", 200, {"hosts": ["a"]})
    assert drain["waves"] == [] and drain["skipped"] == {}


async def test_a_webhook_is_called_only_where_the_settings_allow_it(
    stage: Rebooting, http: httpx2.AsyncClient
) -> None:
    wrong = BY_HAND | {"between": {"webhook": "http://10.0.0.1/reboot"}}
    for path in ("/v1/operations", "/v1/operations/preview"):
        problem = await post(http, path, 422, wrong)
        assert [one["code"] for one in problem["reasons"]] == ["webhook-not-allowed"]
    assert (await get(http, "/v1/operations"))["operations"] == []
    right = BY_HAND | {"between": {"webhook": HOOK}}
    assert (await post(http, "/v1/operations", 202, right))["between"]["webhook"] == HOOK


@pytest.mark.parametrize(
    "wrong",
    [
        {"most_closed": 0},
        {"of_one_domain": 0},
        {"finish_within_s": 60},
        {"between": {"command": True}},
        {"between": {"command": ["/bin/sh"]}},
        {"between": {"back_within_s": 0}},
        {"between": {"agent_version": "1 2"}},
        {"between": {"by_hand": "yes"}},
        {"between": "by hand"},
        {"kind": "drain"},
    ],
)
async def test_what_makes_no_sense_is_refused(http: httpx2.AsyncClient, wrong: dict[str, Any]) -> None:
    await post(http, "/v1/operations", 422, BY_HAND | wrong)
    assert (await get(http, "/v1/operations"))["operations"] == []


async def test_of_a_drain_nothing_is_done_between(stage: Rebooting, http: httpx2.AsyncClient) -> None:
    drain = await post(http, "/v1/operations", 202, {"id": OPERATION, "hosts": ["a"]})
    assert (drain["between"], drain["most_closed"], drain["of_one_domain"]) == (None, None, None)
    assert (await get(http))["host_steps"] == []
    await post(http, f"{PATH}/hosts/a/done", 404)
    await post(http, f"{PATH.replace('bbbb', 'cccc')}/hosts/a/done", 404)


async def test_a_viewer_says_of_no_host_that_it_is_done(stage: Rebooting, http: httpx2.AsyncClient) -> None:
    await post(http, "/v1/operations", 202, BY_HAND)
    await stage.until("b", Stage.BETWEEN)
    async with client(served(stage.controller), UserRole.VIEWER, raises=False) as viewer:
        await post(viewer, f"{PATH}/hosts/b/done", 403)
        assert (await get(viewer))["host_steps"][0]["stage"] == "between"
    async with client(served(stage.controller), UserRole.ADMIN, raises=False) as admin:
        await post(http, f"{PATH}/hosts/b/done", 202)
        (line, *_) = (await get(admin, "/v1/log"))["lines"]
    assert (line["action"], line["target"], line["body"]) == ("operate", OPERATION, {"host": "b"})


async def test_hosts_say_which_version_their_agents_have(http: httpx2.AsyncClient) -> None:
    assert (await get(http, "/v1/hosts/a"))["agent_version"] == "1.0"
