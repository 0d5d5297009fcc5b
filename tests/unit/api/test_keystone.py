"""Tokens of a cloud: who is let in with one, as Keystone says, and what happens while it does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.users.keystone import KeystoneUsers
from sterna.api.access import AuthenticationMiddleware, Entrance
from sterna.api.app import create_app
from sterna.api.sessions import Sessions
from sterna.bootstrap.controller import cloud_of, external_users_of
from sterna.config.access import KeystoneSettings
from sterna.config.compute import ComputeSettings
from sterna.controller.intents import external_users as module
from sterna.controller.intents.external_users import ExternalUsers
from sterna.domain.access import UserRole, highest
from tests.scripted_cloud import ScriptedCloud

from ..controller.conftest import World
from .clients import ACCESS, client

DEFAULT = {"id": "default", "name": "Default"}
ROLES = {"service": UserRole.NEUTRON, "sterna_operator": UserRole.OPERATOR, "sterna_admin": UserRole.ADMIN}
EVENT = {"name": "network-vif-plugged", "server_uuid": "aaaaaaaa-0000-4000-8000-000000000001", "tag": "p-1"}
HINTS = "/v2.1/os-server-external-events"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture
def keystone() -> Iterator[ScriptedCloud]:
    with ScriptedCloud(lambda _: None) as cloud:
        yield cloud


@pytest.fixture
def http(world: World, keystone: ScriptedCloud) -> httpx2.AsyncClient:
    rules = replace(ACCESS, external_users=external_users_at(keystone, world))
    return client(create_app(world.controller, rules), None, raises=False)


def external_users_at(keystone: ScriptedCloud, world: World) -> ExternalUsers:
    cloud = Cloud(CloudAccess(auth_url=keystone.auth_url, username="sterna", password="pw", timeout_s=5))
    users = KeystoneUsers(cloud, keystone.auth_url)
    return ExternalUsers(users, world.clock, "service@Default", ROLES)


def user(*roles: str, **more: Any) -> dict[str, Any]:
    return {
        "user": {"id": "1", "name": "mina", "domain": DEFAULT},
        "project": {"id": "2", "name": "service", "domain": DEFAULT},
        "roles": [{"id": r, "name": r} for r in roles],
        "expires_at": "2100-01-01T00:00:00.000000Z",
    } | more


def sending(token: str) -> dict[str, str]:
    return {"X-Auth-Token": token}


async def test_a_user_of_the_cloud_may_what_its_role_there_means_here(
    http: httpx2.AsyncClient, keystone: ScriptedCloud, world: World
) -> None:
    keystone.users["t-1"] = user("member", "sterna_operator")
    on = {"maintenance": True}
    assert (await http.patch("/v1/hosts/b", json=on, headers=sending("t-1"))).status_code == 200
    refused = await http.get("/v1/log", headers=sending("t-1"))
    assert refused.status_code == 403 and "keystone:mina@Default has the role operator" in refused.json()["detail"]
    keystone.users["t-2"] = user("sterna_operator", "sterna_admin")
    (line,) = (await http.get("/v1/log", headers=sending("t-2"))).json()["lines"]
    assert (line["actor"], line["action"]) == ("keystone:mina@Default", "maintenance")


async def test_neutrons_notifier_posts_events_and_no_more(
    http: httpx2.AsyncClient, keystone: ScriptedCloud, world: World
) -> None:
    keystone.users["t"] = user("service", "admin")
    await world.controller.inventory.vms()
    assert (await http.post(HINTS, json={"events": [EVENT]}, headers=sending("t"))).status_code == 200
    assert len(world.bus.announced) == 1
    assert (await http.get("/v1/hosts", headers=sending("t"))).status_code == 403


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (user("member"), 403),
        (user(), 403),
        (user("sterna_admin", project={"id": "3", "name": "mine", "domain": DEFAULT}), 403),
        (user("sterna_admin", project={"id": "3", "name": "service", "domain": {"id": "x", "name": "Other"}}), 403),
        (user("sterna_admin", project=None), 403),
        (user("sterna_admin", expires_at="2020-01-01T00:00:00.000000Z"), 401),
        (user("sterna_admin", expires_at="soon"), 401),
        (user("sterna_admin", user={"id": "1"}), 503),
        (user("sterna_admin", roles=7), 503),
        (None, 401),
    ],
)
async def test_who_is_not_let_in(
    http: httpx2.AsyncClient, keystone: ScriptedCloud, reply: dict[str, Any] | None, status: int
) -> None:
    if reply is not None:
        keystone.users["t-secret"] = reply
    answer = await http.get("/v1/hosts", headers=sending("t-secret"))
    assert answer.status_code == status, answer.text
    assert answer.json()["reasons"][0]["fix"] and "t-secret" not in answer.text


@pytest.mark.parametrize(
    "reply", ["<html>log in first</html>", b"\xff", "[]", "{}", '{"token": 7}', '{"token": []}', ""]
)
async def test_an_answer_that_is_none_of_keystones_is_as_no_answer(
    http: httpx2.AsyncClient, keystone: ScriptedCloud, reply: str | bytes
) -> None:
    """A proxy in front of it may say 200 to everything."""
    keystone.page = reply if isinstance(reply, bytes) else reply.encode()
    answer = await http.get("/v1/hosts", headers=sending("t-secret"))
    assert answer.status_code == 503, answer.text
    assert "cannot be read" in answer.json()["detail"] and "t-secret" not in answer.text


async def test_a_token_is_asked_about_once_a_minute(
    http: httpx2.AsyncClient, keystone: ScriptedCloud, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keystone.users["t"] = user("sterna_operator")
    for _ in range(3):
        assert (await http.get("/v1/hosts", headers=sending("t"))).status_code == 200
    assert keystone.questions == 1
    del keystone.users["t"]  # revoked
    world.clock.ms += module.KNOWN_S * 1000
    assert (await http.get("/v1/hosts", headers=sending("t"))).status_code == 401
    monkeypatch.setattr(module, "MOST_KNOWN", 1)
    keystone.users |= {"a": user("sterna_operator"), "b": user("sterna_operator")}
    before = keystone.questions
    for token in ("a", "b", "a", "a"):
        assert (await http.get("/v1/hosts", headers=sending(token))).status_code == 200
    assert keystone.questions == before + 3


async def test_a_stream_goes_on_until_its_user_may_no_more(keystone: ScriptedCloud, world: World) -> None:
    """While Keystone is away nobody says otherwise."""
    stills: list[Callable[[], Awaitable[bool]]] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        stills.append(scope["state"]["still"])
        await PlainTextResponse("")(scope, receive, send)

    rules = replace(ACCESS, external_users=external_users_at(keystone, world))
    door = AuthenticationMiddleware(stream, world.controller, Entrance(rules, frozenset(), Sessions()))
    transport = httpx2.ASGITransport(app=door)
    keystone.users["t"] = user("sterna_operator")
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/v1/events", headers=sending("t"))).status_code == 200
    (still,) = stills
    for now, allowed in ((user("sterna_operator"), True), (user("member"), False), (user(), False)):
        keystone.users["t"] = now
        world.clock.ms += module.KNOWN_S * 1000
        assert await still() is allowed
    del keystone.users["t"]
    world.clock.ms += module.KNOWN_S * 1000
    assert not await still()
    keystone.stop()
    assert await still()


async def test_while_keystone_is_away_its_users_are_told_so(
    http: httpx2.AsyncClient, keystone: ScriptedCloud
) -> None:
    keystone.stop()
    answer = await http.get("/v1/hosts", headers=sending("t"))
    assert answer.status_code == 503 and "Keystone" in answer.json()["detail"]
    assert (await http.get("/v1/health", headers=sending("t"))).status_code == 200
    for none in ("x" * 9000, "", "a b", "\u00ff"):
        sent = {b"X-Auth-Token": none.encode("latin-1")}
        assert (await http.get("/v1/hosts", headers=sent)).status_code == 401, "it is not asked"


async def test_the_controllers_own_token_is_renewed(http: httpx2.AsyncClient, keystone: ScriptedCloud) -> None:
    keystone.users["t"] = keystone.users["u"] = user("sterna_operator")
    assert (await http.get("/v1/hosts", headers=sending("t"))).status_code == 200
    keystone.revoked = keystone.logins
    assert (await http.get("/v1/hosts", headers=sending("u"))).status_code == 200


async def test_without_a_cloud_its_tokens_are_no_way_in(world: World) -> None:
    async with client(create_app(world.controller, ACCESS), None) as plain:
        assert (await plain.get("/v1/hosts", headers=sending("t"))).status_code == 401


def test_the_settings_name_a_cloud_or_none() -> None:
    assert external_users_of(KeystoneSettings(), None) is None
    with pytest.raises(ValueError, match="username and password"):
        KeystoneSettings(auth_url="http://127.0.0.1:9/v3")
    reply = {"auth_url": "http://127.0.0.1:9/v3", "username": "sterna", "password": "s3cret"}
    settings = KeystoneSettings.model_validate(reply)
    assert cloud_of(KeystoneSettings(), ComputeSettings()) is None
    assert external_users_of(settings, cloud_of(settings, ComputeSettings())) is not None
    assert "s3cret" not in repr(settings)


def test_the_highest_role_counts() -> None:
    assert highest(()) is None
    assert highest((UserRole.VIEWER, UserRole.ADMIN, UserRole.NEUTRON)) is UserRole.ADMIN
