"""What a cloud's answers, and its silence, mean to us."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sterna.adapters.images.glance import GlanceImages
from sterna.adapters.network.neutron.ports import NeutronPorts
from sterna.adapters.openstack import session
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.volumes.cinder.attachments import Attachments
from sterna.domain.errors import (
    BadRequest,
    Conflict,
    NotFound,
    Permanent,
    SternaError,
    Temporary,
    Unknown,
    Unreachable,
)
from sterna.kit import threads
from tests.scripted_cloud import Answer, Asked, ScriptedCloud
from tests.unit.adapters.openstack.checking import check_at


class Server:
    """One answer for everything."""

    def __init__(self) -> None:
        self.answer = Answer(200, {"attachments": []})
        self.before_answer: Callable[[], object] = lambda: None

    def __call__(self, asked: Asked) -> Answer:
        self.before_answer()
        return self.answer


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def scripted(server: Server) -> Iterator[ScriptedCloud]:
    with ScriptedCloud(server) as cloud:
        yield cloud


@pytest.fixture
def cloud(scripted: ScriptedCloud) -> Cloud:
    return Cloud(CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw"))


def read(connection: Any) -> list[Any]:
    return list(connection.block_storage.attachments())


def delete(connection: Any) -> Any:
    return connection.block_storage.delete_attachment("a1", ignore_missing=False)


async def test_every_request_carries_a_service_token(cloud: Cloud, scripted: ScriptedCloud) -> None:
    assert await cloud.ask("list attachments", read) == []
    (asked,) = scripted.asked
    assert asked.headers["x-service-token"] == asked.headers["x-auth-token"] == "token-1"
    assert asked.headers["openstack-api-version"] == "volume 3.44"


async def test_a_token_that_is_refused_is_renewed_once(cloud: Cloud, scripted: ScriptedCloud) -> None:
    await cloud.ask("list attachments", read)
    scripted.revoked = 1
    await cloud.ask("list attachments", read)
    assert scripted.logins == 2
    assert scripted.asked[-1].headers["x-service-token"] == "token-2"


@pytest.mark.parametrize(
    ("status", "reading", "changing"),
    [
        (400, Permanent, Permanent),
        (403, Permanent, Permanent),
        (404, Unreachable, Unreachable),
        (409, Conflict, Conflict),
        (429, Temporary, Temporary),
        (500, Temporary, Unknown),
        (502, Unreachable, Unknown),
        (503, Temporary, Temporary),
        (504, Unreachable, Unknown),
    ],
)
async def test_answers(
    cloud: Cloud, server: Server, status: int, reading: type[SternaError], changing: type[SternaError]
) -> None:
    server.answer = Answer(status, {"badRequest": {"code": status, "message": "so says Cinder"}})
    for act, kind in ((read, reading), (delete, changing)):
        run = cloud.ask if act is read else cloud.change
        with pytest.raises(kind) as caught:
            await run("look after volume 7", act)
        assert type(caught.value) is kind
        assert "so says Cinder" in caught.value.message
        assert "look after volume 7" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"itemNotFound": {"code": 404, "message": "Volume 7 could not be found."}},
        {"NeutronError": {"type": "PortNotFound", "message": "Port 7 could not be found.", "detail": ""}},
        {"message": "No image found with ID 7", "code": "404 Not Found", "title": "Not Found"},
    ],
)
async def test_what_a_service_itself_does_not_find_is_not_there(cloud: Cloud, server: Server, body: object) -> None:
    server.answer = Answer(404, body)
    for run, act in ((cloud.ask, read), (cloud.change, delete)):
        with pytest.raises(NotFound):
            await run("look after volume 7", act)


@pytest.mark.parametrize("body", [None, [], "no such page", {"message": "no route"}])
async def test_what_a_proxy_does_not_find_may_be_there(cloud: Cloud, server: Server, body: object) -> None:
    server.answer = Answer(404, body)
    with pytest.raises(Unreachable) as caught:
        await cloud.ask("look after volume 7", read)
    assert "openstack catalog list" in caught.value.fix


async def test_what_a_user_without_the_role_does_not_find_may_be_there(
    cloud: Cloud, server: Server, scripted: ScriptedCloud
) -> None:
    scripted.roles = ("member", "service")
    server.answer = Answer(404, {"itemNotFound": {"code": 404, "message": "Volume 7 could not be found."}})
    with pytest.raises(Permanent, match="may be there") as caught:
        await cloud.ask("look after volume 7", read)
    assert "`admin`" in caught.value.fix


async def test_the_service_says_when_to_come_back(cloud: Cloud, server: Server) -> None:
    server.answer = Answer(503, {}, headers={"Retry-After": "7"})
    with pytest.raises(Temporary) as caught:
        await cloud.ask("read", read)
    assert caught.value.delay_s == 7


async def test_a_lost_answer_is_unknown_only_where_something_may_have_changed(
    cloud: Cloud, server: Server, scripted: ScriptedCloud
) -> None:
    server.answer = Answer(lost=True)
    with pytest.raises(Unreachable):
        await cloud.ask("read", read)
    with pytest.raises(Unknown):
        await cloud.change("delete", delete)
    assert ("DELETE", "/v3/attachments/a1") in scripted.changes()


async def test_a_keystone_that_is_away_was_never_asked_and_may_come_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cloud = Cloud(CloudAccess(auth_url=f"http://127.0.0.1:{port}/identity/v3", username="sterna", password="pw"))
    for run, act in ((cloud.change, delete), (cloud.ask, read)):
        with pytest.raises(Unreachable) as caught:
            await run("try", act)
        assert "`[openstack]`" in caught.value.fix
    with ScriptedCloud(Server(), port=port):
        assert await cloud.ask("read", read) == []


async def test_a_service_that_is_away_was_never_asked(cloud: Cloud, scripted: ScriptedCloud) -> None:
    await cloud.ask("read", read)
    scripted.stop()
    with pytest.raises(Unreachable):
        await cloud.change("delete", delete)


async def test_a_wrong_password(cloud: Cloud, scripted: ScriptedCloud) -> None:
    scripted.refuse_login = Answer(401, {"error": {"code": 401, "message": "The request requires authentication"}})
    with pytest.raises(Permanent) as caught:
        await cloud.ask("read", read)
    assert "password" in caught.value.fix


async def test_a_catalog_without_the_service(cloud: Cloud, scripted: ScriptedCloud) -> None:
    scripted.services = {}
    with pytest.raises(Permanent) as caught:
        await cloud.ask("read", read)
    assert "catalog" in caught.value.fix


async def test_a_bug_stays_a_bug(cloud: Cloud) -> None:
    with pytest.raises(ZeroDivisionError):
        await cloud.ask("divide", lambda connection: 1 / 0)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(CloudAccess(auth_url="http://x", username="u", password="secret"))


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openstack.connection", None)
    with pytest.raises(BadRequest) as caught:
        Cloud(CloudAccess(auth_url="http://x", username="u", password="p"))
    assert "sterna[openstack]" in caught.value.fix


async def test_a_service_that_never_answers_is_not_waited_for(scripted: ScriptedCloud, server: Server) -> None:
    cloud = Cloud(CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw", timeout_s=0.2))
    await cloud.ask("list attachments", read)  # it has logged in
    gate = threading.Event()
    server.before_answer = gate.wait
    try:
        async with asyncio.timeout(20):
            with pytest.raises(Unreachable):
                await cloud.ask("list attachments", read)
            with pytest.raises(Unknown):
                await cloud.change("delete", delete)
    finally:
        gate.set()


@pytest.mark.parametrize("service", ["Neutron", "Cinder", "Glance"])
async def test_a_check_names_a_service_that_is_silent_before_who_asks_has_left(
    cloud: Cloud, server: Server, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """A user waits for a check, for 60 s; then its agent is blamed."""
    await cloud.ask("list attachments", read)  # it has logged in
    monkeypatch.setattr(session, "CHECK_S", 0.2)
    gate = threading.Event()
    server.before_answer = gate.wait
    try:
        async with asyncio.timeout(20):
            why = await check_at(cloud, service)
    finally:
        gate.set()
    assert f"{service} does not answer: no answer within 0.2 s" in why


async def test_an_act_whose_answer_comes_drop_by_drop_has_an_end(scripted: ScriptedCloud) -> None:
    cloud = Cloud(CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw", timeout_s=0.05))
    gate = threading.Event()
    try:
        async with asyncio.timeout(20):
            with pytest.raises(Unreachable):
                await cloud.ask("read for ever", lambda _connection: gate.wait())
            with pytest.raises(Unknown):
                await cloud.change("change for ever", lambda _connection: gate.wait())
    finally:
        gate.set()


async def test_a_service_that_does_not_answer_keeps_nobody_from_the_others(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    monkeypatch.setattr(cloud, "_timeout_s", 0.01)
    gate = threading.Event()

    def hears(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    silent, alive = SimpleNamespace(get=lambda _path: gate.wait()), SimpleNamespace(get=hears)
    monkeypatch.setattr(cloud, "_connection", SimpleNamespace(image=silent, network=alive, block_storage=alive))
    async with asyncio.timeout(20):
        for words in ("no answer", "no answer", "hang already"):
            with pytest.raises(Unreachable, match=words):
                await GlanceImages(cloud).properties("i1")
        monkeypatch.setattr(cloud, "_timeout_s", 5.0)
        for look in (NeutronPorts(cloud).raw("p1"), Attachments(cloud).look("v1")):
            with pytest.raises(ZeroDivisionError):
                await look
    gate.set()
