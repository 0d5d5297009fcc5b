"""What every answer carries: request ids, versions; and who is let in."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from sterna.api.app import create_app
from sterna.api.compute import app as compute_app
from sterna.api.compute.call import rule_of
from sterna.domain.compute.policies import NEEDS, Rule
from sterna.domain.errors import Unreachable

from ...controller.conftest import World
from ..clients import ACCESS
from .cloud import OURS, THEIRS, WEB1, Cloud, FakeCloud, FakeKeystone, fault_of, set_up

STANDARD, LEGACY = "openstack-api-version", "x-openstack-nova-api-version"


def test_every_route_names_its_rule_and_every_rule_has_a_role() -> None:
    named = {rule_of(route) for route in compute_app.routes()}
    assert None not in named and named <= set(Rule)
    assert set(NEEDS) == set(Rule)


def test_a_route_without_a_rule_keeps_the_api_from_starting(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    route = compute_app.routes()[-1]
    monkeypatch.setattr(route, "dependencies", [])
    with pytest.raises(TypeError, match="does not name one rule"):
        create_app(world.controller, ACCESS, compute=set_up(world, FakeKeystone(), FakeCloud()))


async def test_without_settings_there_is_no_compute_api(world: World) -> None:
    app = create_app(world.controller, ACCESS)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://sterna") as http:
        assert (await http.get("/compute/v2.1")).status_code == 401  # the door of everything else


@pytest.mark.parametrize("path", ["", "/", "/v2.1", "/v2.1/"])
async def test_discovery_needs_no_token(cloud: Cloud, path: str) -> None:
    answer = await cloud.http.get(f"/compute{path}")
    assert answer.status_code == 200
    found = answer.json()
    version = found["version"] if "version" in found else found["versions"][0]
    assert (version["id"], version["min_version"], version["version"]) == ("v2.1", "2.1", "2.96")
    assert version["links"][0]["href"] == "http://cloud.example:8774/compute/v2.1/"


async def test_links_begin_as_the_settings_say(cloud: Cloud) -> None:
    app = create_app(
        cloud.world.controller, ACCESS, compute=replace(cloud.setup, url="https://public.example/compute")
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://inner") as http:
        found = (await http.get("/compute/v2.1")).json()["version"]["links"][0]["href"]
    assert found == "https://public.example/compute/v2.1/"


@pytest.mark.parametrize("token", [None, "forged", "", "a b", "x" * 9000])
async def test_who_has_no_token_is_told_where_to_get_one(cloud: Cloud, token: str | None) -> None:
    answer = await cloud.ask("/servers", token=token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Keystone uri="http://keystone.example/v3"'
    error = answer.json()["error"]
    assert (error["code"], error["title"]) == (401, "Unauthorized") and error["message"]
    assert answer.headers["x-openstack-request-id"].startswith("req-")


async def test_while_keystone_is_away_nobody_is_let_in(cloud: Cloud) -> None:
    cloud.keystone.fault = Unreachable("Keystone does not answer", fix="check that it runs")
    answer = await cloud.ask("/servers")
    assert answer.status_code == 503
    assert fault_of(answer, "serviceUnavailable") == "Keystone does not answer. Fix: check that it runs."


async def test_a_token_is_asked_about_once_a_minute(cloud: Cloud) -> None:
    for _ in range(3):
        await cloud.get("/servers")
    assert cloud.keystone.questions == 1


@pytest.mark.parametrize("method, path", [("GET", f"/servers/{WEB1}"), ("GET", "/servers/nope"), ("POST", "/x")])
async def test_every_answer_names_its_request_and_its_version(cloud: Cloud, method: str, path: str) -> None:
    answer = await cloud.ask(path, "2.80", method=method, body={} if method == "POST" else None)
    assert answer.headers[STANDARD] == "compute 2.80" and answer.headers[LEGACY] == "2.80"
    assert {name.strip().lower() for name in answer.headers["vary"].split(",")} == {STANDARD, LEGACY}
    ids = {answer.headers["x-openstack-request-id"], answer.headers["x-compute-request-id"]}
    assert len(ids) == 1 and ids.pop().startswith("req-")
    other = await cloud.ask(path, "2.80", method=method, body={} if method == "POST" else None)
    assert other.headers["x-compute-request-id"] != answer.headers["x-compute-request-id"]


@pytest.mark.parametrize(
    ("headers", "used"),
    [
        ({}, "2.1"),
        ({"OpenStack-API-Version": "compute 2.53"}, "2.53"),
        ({"OpenStack-API-Version": "volume 3.59, compute 2.53"}, "2.53"),
        ({"OpenStack-API-Version": "volume 3.59"}, "2.1"),
        ({"X-OpenStack-Nova-API-Version": "2.30"}, "2.30"),
        ({"OpenStack-API-Version": "compute 2.53", "X-OpenStack-Nova-API-Version": "2.30"}, "2.53"),
        ({"OpenStack-API-Version": "compute latest"}, "2.96"),
    ],
)
async def test_a_version_is_asked_for_in_either_header(cloud: Cloud, headers: dict[str, str], used: str) -> None:
    answer = await cloud.ask("/servers", None, headers=headers)
    assert (answer.status_code, answer.headers[STANDARD]) == (200, f"compute {used}")


@pytest.mark.parametrize("version", ["1.0", "2.0", "2.97", "2.999", "3.1"])
async def test_a_version_that_is_not_served_is_not_acceptable(cloud: Cloud, version: str) -> None:
    answer = await cloud.ask("/servers", version)
    assert answer.status_code == 406 and answer.headers[LEGACY] == version
    assert "the newest is 2.96" in fault_of(answer, "computeFault")


@pytest.mark.parametrize("version", ["2.80", "2.999", "abc"])
async def test_the_list_of_versions_has_none_itself(cloud: Cloud, version: str) -> None:
    answer = await cloud.http.get("/compute/", headers={"OpenStack-API-Version": f"compute {version}"})
    assert answer.status_code == 200 and not {STANDARD, LEGACY} & set(answer.headers)


@pytest.mark.parametrize("version", ["abc", "2", "2.1.1", "2.01", "-2.1", "2.99999"])
async def test_what_is_not_a_version_is_a_bad_request(cloud: Cloud, version: str) -> None:
    answer = await cloud.ask("/servers", version)
    assert answer.status_code == 400 and STANDARD not in answer.headers
    assert "not a version of this API" in fault_of(answer, "badRequest")


async def test_an_address_with_a_project_is_that_projects(cloud: Cloud) -> None:
    assert (await cloud.ask(f"/{OURS}/servers", "2.1")).status_code == 200
    assert (await cloud.ask(f"/{OURS}/servers/{WEB1}", "2.1")).json()["server"]["id"] == WEB1
    wrong = await cloud.ask(f"/{THEIRS}/servers", "2.1")
    assert wrong.status_code == 400 and THEIRS in fault_of(wrong, "badRequest")


@pytest.mark.parametrize(
    "method, path", [("GET", "/os-nothing"), ("PUT", "/os-migrations"), ("DELETE", "/servers/x")]
)
async def test_what_is_not_served_is_not_found(cloud: Cloud, method: str, path: str) -> None:
    answer = await cloud.ask(path, method=method, body={} if method == "PUT" else None)
    assert answer.status_code == 404 and fault_of(answer, "itemNotFound")


async def test_a_body_that_is_too_long_is_refused(cloud: Cloud) -> None:
    answer = await cloud.ask(f"/servers/{WEB1}/action", method="POST", body={"os-migrateLive": "x" * 2**21})
    assert answer.status_code == 413 and fault_of(answer, "overLimit")


async def test_a_bug_is_a_fault_of_the_same_shape(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.setup.servers, "all", None)
    answer = await cloud.ask("/servers")
    assert answer.status_code == 500 and "a bug in Sterna" in fault_of(answer, "computeFault")


async def test_who_changes_something_is_in_the_audit_log(cloud: Cloud) -> None:
    accepted = await cloud.migrate(token="manager", host=None)
    refused = await cloud.migrate(token="reader", host=None)
    assert (accepted.status_code, refused.status_code) == (202, 403)
    headers = {"Authorization": "Bearer test-token-of-the-admin", "Host": "sterna"}
    lines = (await cloud.http.get("/v1/log", headers=headers)).json()["lines"]
    assert [(x["actor"], x["role"], x["action"], x["target"], x["status"]) for x in lines] == [
        ("keystone:reader@Default", "viewer", "migrate", WEB1, 403),
        ("keystone:manager@Default", "operator", "migrate", WEB1, 202),
    ]
    assert lines[1]["request"] == accepted.headers["x-openstack-request-id"]
    assert lines[1]["body"] == {"action": "os-migrateLive", "host": None, "block_migration": "auto"}


async def test_where_nothing_can_be_logged_nothing_is_done(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("the database is away")

    monkeypatch.setattr(cloud.world.controller.users, "asked", away)
    assert (await cloud.migrate()).status_code == 503
    assert cloud.world.bus.asked("start_migration") == 0
