"""Hosts join at a controller that has the CA: by a token's secret alone, once, and nobody else gets anything."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority, Signed
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.enrolled import EnrolledHosts
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import new_key, new_request, read_certificates
from sterna.adapters.sql.fleet import SqlFleet
from sterna.api.access import LARGEST_OF_ANYBODY
from sterna.api.app import create_app
from sterna.controller.controller import Controller
from sterna.controller.records.members import Members
from sterna.domain.access import UserRole
from sterna.domain.errors import Unreachable
from sterna.domain.model import Data
from sterna.domain.trust import bounds
from sterna.domain.trust.join_token import JoinToken
from sterna.ports.access import LogPage, LogRecord
from tests.unit.adapters.identities import HOST1, HOST2, Calendar, request_of
from tests.unit.adapters.identities import join as joined

from ..controller.conftest import World
from ..controller.fakes import FakeBus, HandClock
from .clients import ACCESS, client

PATHS = ("/v1/ca", "/v1/join", "/v1/renewals")


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def authority(tmp_path: Path, calendar: Calendar) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"], calendar)


@pytest.fixture
async def stranger(world: World, authority: Authority) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without any credentials."""
    async with client(create_app(world.controller, ACCESS, LocalDesk(authority)), None, raises=False) as http:
        yield http


def asked(token: JoinToken, request: str | None = None) -> Data:
    text = request_of(token.host).decode() if request is None else request
    return {"host": token.host, "secret": token.secret, "request": text}


def renewal(own: OwnFiles) -> Data:
    return own.renewal().model_dump()


async def log_of(world: World) -> list[LogRecord]:
    return await world.controller.users.page(LogPage())


def reason(answer: httpx2.Response) -> tuple[int, str]:
    """Its status, and why."""
    (only,) = answer.json()["reasons"]
    assert only["fix"]
    return answer.status_code, str(only["message"])


# ------------------------------------------------------------ who is let in


async def test_without_a_ca_nobody_is_let_in_and_those_who_are_known_are_told_where_one_is(world: World) -> None:
    app = create_app(world.controller, ACCESS)
    async with client(app, None) as http, client(app, UserRole.ADMIN) as admin:
        for path, method in zip(PATHS, ("GET", "POST", "POST"), strict=True):
            assert (await http.request(method, path)).status_code == 401
        status, why = reason(await admin.get("/v1/ca"))
    assert status == 404 and "no CA" in why


async def test_with_one_nothing_else_is_open(stranger: httpx2.AsyncClient, authority: Authority) -> None:
    assert (await stranger.get("/v1/ca")).json() == {"ca": authority.pem.decode()}
    for path in ("/v1/hosts", "/v1/ca/", "/v1/join/host1", "/v1//join", "/docs"):
        assert (await stranger.post(path, json={})).status_code == 401, path


async def test_a_token_is_good_for_one_key_once(
    stranger: httpx2.AsyncClient, world: World, authority: Authority
) -> None:
    token = authority.invite(HOST1, ["10.0.0.1"])
    mine = asked(token)
    first = await stranger.post("/v1/join", json=mine)
    assert first.status_code == 200 and first.json()["ca"] == authority.pem.decode()
    assert (await stranger.post("/v1/join", json=mine)).status_code == 200, "its answer may have been lost"
    status, why = reason(await stranger.post("/v1/join", json=asked(token)))
    assert status == 409 and "used already, by another key" in why
    second, line = await log_of(world)
    for one in (second, line):
        what = one.asked
        assert (what.actor, what.role, what.action, what.target) == ("agent:host1", "agent", "join", "host1")
        assert (what.origin, one.status) == ("127.0.0.1", 200)
        assert what.body == {} and token.secret not in one.model_dump_json()


async def test_two_at_once_with_one_token(stranger: httpx2.AsyncClient, authority: Authority) -> None:
    token = authority.invite(HOST1, [])
    answers = await asyncio.gather(*[stranger.post("/v1/join", json=asked(token)) for _ in range(8)])
    assert sorted(a.status_code for a in answers) == [200, *[409] * 7]
    member = authority.register().find(HOST1)
    assert member is not None and len(member.certificates) == 1


async def test_a_token_that_is_old_of_another_host_or_was_taken_back(
    stranger: httpx2.AsyncClient, world: World, authority: Authority, calendar: Calendar
) -> None:
    token = authority.invite(HOST1, [])
    authority.invite(HOST2, [])
    status, why = reason(await stranger.post("/v1/join", json=asked(token.model_copy(update={"host": "host2"}))))
    assert status == 409 and "not valid" in why
    calendar.at += timedelta(minutes=15)
    status, why = reason(await stranger.post("/v1/join", json=asked(token)))
    assert status == 409 and "expired" in why
    token = authority.invite(HOST1, [])
    authority.remove(HOST1)
    status, why = reason(await stranger.post("/v1/join", json=asked(token)))
    assert status == 409 and "not valid" in why
    assert await log_of(world) == []


async def test_a_certificate_is_renewed_for_who_has_its_key_until_it_is_removed(
    stranger: httpx2.AsyncClient, world: World, authority: Authority, tmp_path: Path
) -> None:
    own, other = joined(authority, HOST1, tmp_path / "one"), joined(authority, HOST2, tmp_path / "two")
    sent = renewal(own)
    answer = await stranger.post("/v1/renewals", json=sent)
    assert read_certificates(answer.json()["certificate"], "it")[0].subject.rfc4514_string().startswith("CN=host1")
    (line,) = await log_of(world)
    assert (line.asked.actor, line.asked.target) == ("agent:host1", "host1")
    forged = sent | {"certificate": renewal(other)["certificate"]}
    status, why = reason(await stranger.post("/v1/renewals", json=forged))
    assert status == 400 and "not signed with the present key" in why
    authority.remove(HOST1)
    status, why = reason(await stranger.post("/v1/renewals", json=sent))
    assert status == 409 and "removed" in why
    assert len(await log_of(world)) == 1


async def test_who_could_not_join_is_in_the_controllers_own_log(
    stranger: httpx2.AsyncClient, authority: Authority, tmp_path: Path
) -> None:
    token, own = authority.invite(HOST1, []), joined(authority, HOST2, tmp_path / "two")
    authority.remove(HOST2)
    with capture_logs() as logs:
        await stranger.post("/v1/join", json=asked(token.model_copy(update={"secret": "0" * 32})))
        await stranger.post("/v1/join", json=asked(token) | {"host": "a\x1b[2J\nb"})
        await stranger.post("/v1/renewals", json=renewal(own))
    told = [line for line in logs if "was refused" in line["event"] and line["log_level"] == "warning"]
    assert [line["origin"] for line in told] == ["127.0.0.1"] * 3
    assert "not valid" in told[0]["why"] and "removed" in told[2]["why"]
    assert token.secret not in str(logs) and "\x1b" not in str([line["host"] for line in told[:2]])


# ------------------------------------------------------------ what a stranger may send

DEEP = b'{"host": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
NOT_FOR_A_HOST: dict[str, Data | bytes] = {
    "a path": {"host": "../../etc/cron.d/x"},
    "a path that begins well": {"host": "host1/../../x"},
    "nothing": {"host": ""},
    "a null": {"host": "host1\0"},
    "a line": {"host": "host1\nhost2"},
    "half a character": b'{"host": "host1", "secret": "\\ud800", "request": "\\ud800"}',
    "a list": {"host": ["host1"]},
    "what is too long": {"host": "a" * 64},
    "a secret that is too long": {"secret": "0" * 65},
    "a secret that is a number": {"secret": 0},
    "no request": {"request": ""},
    "two requests": {"request": request_of("host1").decode() * 2},
    "a key": {"request": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
    "more than a request": {"request": "A" * (16 * 1024 + 1)},
    "another version": {"v": 2},
    "something more": {"addresses": ["10.0.0.9"]},
    "no JSON": b"{",
    "depth": DEEP,
    "no object": b"[]",
}


@pytest.mark.parametrize("what", NOT_FOR_A_HOST)
async def test_what_a_stranger_sends_changes_nothing(
    what: str, stranger: httpx2.AsyncClient, world: World, authority: Authority, tmp_path: Path
) -> None:
    authority.invite(HOST1, [])
    before, given = authority.register(), NOT_FOR_A_HOST[what]
    whole = {"host": "host1", "secret": "0" * 32, "request": request_of("host1").decode()}
    body = given if isinstance(given, bytes) else json.dumps(whole | given).encode()
    answer = await stranger.post("/v1/join", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 409, 422), answer.text
    assert answer.json()["reasons"] and str(tmp_path) not in answer.text
    assert (authority.register(), await log_of(world)) == (before, [])


def odd_requests() -> list[str]:
    """One byte of a request is another, at each place where the form begins."""
    whole, found = new_request(new_key(), "host1").public_bytes(Encoding.DER), []
    for place in range(40):
        for byte in (0, 5, 0xFF):
            der = whole[:place] + bytes([byte]) + whole[place + 1 :]
            text = base64.encodebytes(der).decode()
            found.append(f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n")
    return found


async def test_requests_that_cannot_be_read(stranger: httpx2.AsyncClient, authority: Authority) -> None:
    authority.invite(HOST1, [])
    for text in odd_requests():
        sent = {"host": "host1", "secret": "0" * 32, "request": text}
        assert (await stranger.post("/v1/join", json=sent)).status_code in (400, 409), text


async def test_a_body_of_a_stranger_has_an_end(stranger: httpx2.AsyncClient) -> None:
    taken = 0

    async def pour() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 4096
            yield b" " * 4096

    answer = await stranger.post("/v1/join", content=pour(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert taken < 2 * LARGEST_OF_ANYBODY


# ------------------------------------------------------------ what is wrong with the CA


@pytest.mark.parametrize("wrong", ["damaged", "open to others", "in use"])
async def test_what_is_wrong_with_the_ca_is_its_operators_business(
    wrong: str,
    stranger: httpx2.AsyncClient,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token, folder = authority.invite(HOST1, []), tmp_path / "ca"
    monkeypatch.setattr(private_files, "LOCK_S", 0.05)
    if wrong == "damaged":
        (folder / "register.json").write_text("{")
    elif wrong == "open to others":
        folder.chmod(0o755)
    with private_files.alone(folder if wrong == "in use" else tmp_path):
        status, why = reason(answer := await stranger.post("/v1/join", json=asked(token)))
    assert status == 503 and "the CA" in why
    assert str(tmp_path) not in answer.text


async def test_many_strangers_do_not_take_all_threads(
    stranger: httpx2.AsyncClient, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = authority.invite(HOST1, [])
    monkeypatch.setattr(bounds, "MOST_UNPROVEN", 3)
    wrong = asked(token.model_copy(update={"secret": "0" * 32}))
    answers = await asyncio.gather(*[stranger.post("/v1/join", json=wrong) for _ in range(12)])
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {409, 503} and "busy" in answers[statuses.index(503)].text
    assert (await stranger.post("/v1/join", json=asked(token))).status_code == 200


async def test_junk_from_one_address_keeps_no_host_of_another_from_joining(
    world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_UNPROVEN", 4)
    monkeypatch.setattr(bounds, "SHARE_OF_AN_ORIGIN", 1)
    goes_on, redeem = threading.Event(), authority.redeem

    def slowly(host: str, secret: str, request: str) -> Signed:
        goes_on.wait(20)
        return redeem(host, secret, request)

    monkeypatch.setattr(authority, "redeem", slowly)
    token, desk = authority.invite(HOST1, []), LocalDesk(authority)
    wrong = asked(token.model_copy(update={"secret": "0" * 32}))
    app = create_app(world.controller, ACCESS, desk)
    async with client(app, None) as junk, client(app, None, origin="10.0.0.7") as host:
        sent = [asyncio.create_task(junk.post("/v1/join", json=wrong)) for _ in range(12)]
        async with asyncio.timeout(20):
            while sum(one.done() for one in sent) < 10:  # noqa: ASYNC110 - those that are not refused wait
                await asyncio.sleep(0)
        joins = asyncio.create_task(host.post("/v1/join", json=asked(token)))
        goes_on.set()
        assert (await joins).status_code == 200
        assert Counter([(await one).status_code for one in sent]) == {409: 2, 503: 10}


async def test_who_cannot_be_logged_gets_nothing(
    stranger: httpx2.AsyncClient, world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("the database does not answer", fix="see to it")

    token = authority.invite(HOST1, [])
    mine = asked(token)
    with monkeypatch.context() as patch:
        patch.setattr(world.fleet, "log_asked", away)
        answer = await stranger.post("/v1/join", json=mine)
        assert answer.status_code == 503 and "CERTIFICATE" not in answer.text
    assert (await stranger.post("/v1/join", json=mine)).status_code == 200


# ------------------------------------------------------------ who is enrolled


async def test_enrolled_hosts_are_listed_with_the_ends_of_their_certificates(
    database: str, authority: Authority, tmp_path: Path
) -> None:
    own = joined(authority, HOST1, tmp_path / "one")
    authority.invite(HOST2, ["10.0.0.2"])
    members = Members(EnrolledHosts(authority), insecure=False)
    controller = Controller(SqlFleet.open(database), FakeBus(), HandClock(), members=members)
    async with client(create_app(controller, ACCESS), UserRole.VIEWER) as http:
        one, two = (await http.get("/v1/enrolments")).json()["hosts"]
        until = own.validity()[1].isoformat()
        assert (one["name"], one["state"], one["certificate_until"]) == ("host1", "joined", until)
        assert (two["state"], two["addresses"], two["certificate_until"]) == ("invited", ["10.0.0.2"], None)
        authority.remove(HOST1)
        one = (await http.get("/v1/enrolments")).json()["hosts"][0]
        assert (one["state"], one["certificate_until"]) == ("removed", None) and one["removed_at"]
        assert (await http.get("/v1/hosts")).json()["insecure"] is None
        (tmp_path / "ca" / "register.json").unlink()
        status, why = reason(await http.get("/v1/enrolments"))
        assert status == 503 and str(tmp_path) not in why
    await controller.stop()


async def test_without_a_ca_nobody_knows_who_is_enrolled_and_an_insecure_bus_is_said(database: str) -> None:
    controller = Controller(SqlFleet.open(database), FakeBus(), HandClock(), members=Members(None, insecure=True))
    async with client(create_app(controller, ACCESS), UserRole.VIEWER) as http:
        status, why = reason(await http.get("/v1/enrolments"))
        assert status == 404 and "has no CA" in why
        assert "can impersonate any host" in (await http.get("/v1/hosts")).json()["insecure"]
    await controller.stop()
