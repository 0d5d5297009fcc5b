"""Keystone is asked once for all services, ahead of their requests, and is blamed for its own silence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sterna.adapters.openstack import session
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.users.keystone import KeystoneUsers
from sterna.domain.errors import Cancelled, Conflict, NotFound, Permanent, Unreachable
from sterna.kit import threads
from sterna.kit.aborts import abortable_by
from tests.scripted_cloud import Answer, Asked, ScriptedCloud
from tests.unit.adapters.openstack.checking import check_at


def answers(asked: Asked) -> Answer:
    return Answer(200, {})


@contextmanager
def clouds(timeout_s: float = 60.0) -> Iterator[tuple[Cloud, ScriptedCloud]]:
    with ScriptedCloud(answers) as scripted:
        access = CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw", timeout_s=timeout_s)
        yield Cloud(access), scripted


@contextmanager
def silent_keystone(scripted: ScriptedCloud) -> Iterator[threading.Event]:
    """Inside, a login never ends; what is given is set once one has begun."""
    gate, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        gate.wait()

    scripted.before_login = hang
    try:
        yield begun
    finally:
        gate.set()


def get(connection: Any) -> Any:
    return connection.network.get("/ports/p1")


def put(connection: Any) -> Any:
    answer = connection.network.put("/ports/p1", json={})
    if answer.status_code >= 400:
        from openstack.exceptions import raise_from_response

        raise_from_response(answer)
    return answer


@pytest.mark.parametrize("changing", [False, True])
async def test_a_keystone_that_never_answers_is_named_and_not_waited_for(changing: bool) -> None:
    with clouds(timeout_s=0.2) as (cloud, scripted), silent_keystone(scripted):
        async with asyncio.timeout(20):
            with pytest.raises(Unreachable, match="log in at Keystone"):
                await (
                    cloud.change("bind", put, of="neutron") if changing else cloud.ask("look", get, of="neutron")
                )
    assert scripted.asked == []


async def test_one_login_and_its_limit_are_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would else wait for those before it, and then try for itself."""
    begun = list[str]()
    with clouds(timeout_s=0.5) as (cloud, scripted), silent_keystone(scripted):
        real = cloud._login._auth.get_auth_ref

        def counted(session: Any) -> Any:
            begun.append("login")
            return real(session)

        monkeypatch.setattr(cloud._login._auth, "get_auth_ref", counted)
        services = ("neutron", "cinder", "glance") * 3
        found = await asyncio.gather(*(cloud.ask("look", get, of=s) for s in services), return_exceptions=True)
    assert {type(error) for error in found} == {Unreachable}
    assert {"Keystone" in str(error) for error in found} == {True}
    assert begun == ["login"]


@pytest.mark.parametrize("service", ["Neutron", "Cinder", "Glance"])
async def test_a_check_names_keystone_where_it_is_keystone_that_is_silent(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setattr(session, "CHECK_S", 0.2)
    with clouds() as (cloud, scripted), silent_keystone(scripted):
        async with asyncio.timeout(20):
            why = await check_at(cloud, service)
    assert "Keystone does not answer: no answer within 0.2 s" in why


async def test_who_leaves_does_not_end_the_login_of_the_others() -> None:
    with clouds() as (cloud, scripted):
        with silent_keystone(scripted) as begun:
            first = asyncio.create_task(cloud.ask("look", get, of="neutron"))
            await asyncio.to_thread(begun.wait, 20)
            second = asyncio.create_task(cloud.ask("look", get, of="cinder"))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        async with asyncio.timeout(20):
            await second
    assert scripted.logins == 1


async def test_an_abort_does_not_wait_for_a_login() -> None:
    aborted = asyncio.Event()
    with clouds() as (cloud, scripted), silent_keystone(scripted) as begun:
        with abortable_by(aborted):
            asking = asyncio.create_task(cloud.change("bind", put, of="neutron"))
        await asyncio.to_thread(begun.wait, 20)
        aborted.set()
        async with asyncio.timeout(20):
            with pytest.raises(Cancelled):
                await asking


@pytest.mark.parametrize(("left_s", "logins"), [(60, 3), (3600, 1)])
async def test_a_token_that_is_about_to_expire_is_renewed(left_s: int, logins: int) -> None:
    with clouds() as (cloud, scripted):
        scripted.token_life = (datetime.now(UTC) + timedelta(seconds=left_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for _ in range(3):
            await cloud.ask("look", get, of="neutron")
        assert scripted.logins == logins
        assert scripted.asked[-1].headers["x-auth-token"] == f"token-{logins}"


async def test_a_change_that_a_service_refused_for_its_token_is_asked_for_once_more() -> None:
    with clouds() as (cloud, scripted):
        await cloud.ask("look", get, of="neutron")
        scripted.revoked = 1
        await cloud.change("bind", put, of="neutron")
        assert scripted.logins == 2
        scripted.revoked = 99
        with pytest.raises(Permanent) as caught:
            await cloud.change("bind", put, of="neutron")
        assert "password" in caught.value.fix
        assert scripted.logins == 3


@pytest.mark.parametrize("status", [404, 409])
async def test_keystones_word_is_not_taken_for_a_services(status: int) -> None:
    """A volume that is not found needs no detaching."""
    with clouds() as (cloud, scripted):
        scripted.refuse_login = Answer(status, {"error": {"code": status, "message": "no such page"}})
        with pytest.raises(Permanent) as caught:
            await cloud.ask("read volume v1", get, of="cinder")
        assert not isinstance(caught.value, NotFound | Conflict)
        assert "Keystone" in caught.value.message
        assert "auth_url" in caught.value.fix


@contextmanager
def slow_act() -> Iterator[tuple[Callable[[Any], str], threading.Event, threading.Event]]:
    """What is asked for; that it has begun; and its end."""
    begun, gate = threading.Event(), threading.Event()

    def act(_: Any) -> str:
        begun.set()
        gate.wait()
        return "done"

    try:
        yield act, begun, gate
    finally:
        gate.set()


async def test_an_abort_ends_a_question_at_once() -> None:
    aborted = asyncio.Event()
    with clouds() as (cloud, _), slow_act() as (act, begun, _gate):
        with abortable_by(aborted):
            asking = asyncio.create_task(cloud.ask("look", act, of="neutron"))
        await asyncio.to_thread(begun.wait, 20)
        aborted.set()
        async with asyncio.timeout(20):
            with pytest.raises(Cancelled):
                await asking


async def test_an_abort_lets_a_change_come_to_its_end() -> None:
    """It may be carried out later, when nobody looks any more."""
    aborted = asyncio.Event()
    with clouds() as (cloud, _), slow_act() as (act, begun, gate):
        with abortable_by(aborted):
            changing = asyncio.create_task(cloud.change("bind", act, of="neutron"))
        await asyncio.to_thread(begun.wait, 20)
        aborted.set()
        done, _ = await asyncio.wait({changing}, timeout=0.2)
        assert done == set()
        gate.set()
        async with asyncio.timeout(20):
            assert await changing == "done"


async def test_after_an_abort_nothing_is_begun() -> None:
    aborted = asyncio.Event()
    with clouds() as (cloud, scripted):
        await cloud.ask("look", get, of="neutron")
        aborted.set()
        with abortable_by(aborted), pytest.raises(Cancelled):
            await cloud.change("bind", put, of="neutron")
        assert scripted.changes() == []


class Hanging(dict[str, Any]):
    """What Keystone knows of tokens; looking one up takes until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def get(self, *_: object) -> None:
        self.gate.wait(20)


async def test_users_tokens_about_which_keystone_is_silent_keep_nobody_from_a_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody who reaches the API can send tokens."""
    monkeypatch.setattr(threads, "MOST_LEFT", 1)
    monkeypatch.setattr(session, "CHECK_S", 0.5)
    with clouds() as (cloud, scripted):
        await cloud.ask("read port p1", get, of="neutron")
        scripted.users = hanging = Hanging()
        with pytest.raises(Unreachable):
            await KeystoneUsers(cloud, scripted.auth_url).user("t")
        login = asyncio.create_task(cloud._login.token(refused="token-1"))
        await asyncio.wait({login}, timeout=0.5)
        hanging.gate.set()
        assert await login == "token-2"
