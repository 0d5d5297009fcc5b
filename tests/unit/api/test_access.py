"""Nobody comes in who is not known, and everybody may do what the table says and no more."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from sterna.api import app as application
from sterna.api.access import LARGEST_BODY, UNLOGGED, action_of, needs
from sterna.api.app import create_app, public_paths, routes
from sterna.api.browsers import SAFE
from sterna.api.web.assets import ADDRESSES
from sterna.domain.access import BESIDE, NEEDS, Action, UserRole, may
from sterna.domain.errors import Unreachable
from sterna.domain.tokens import LONGEST_DAYS

from ..controller.conftest import World
from ..controller.requests import ID
from .clients import TOKENS, bearing, client, secret_of, served
from .rest import Api, body

OPEN = {"/v1/health", "/v1/version", "/sign-in", *ADDRESSES.values()}


@pytest.fixture
def database(tmp_path: Path) -> str:
    """One kind is enough here: what the records keep is tested on both (`tests/contract`)."""
    return f"sqlite:///{tmp_path}/controller.db"


def asked(route: APIRoute) -> Iterator[tuple[str, str]]:
    path = route.path.format(id=ID, name="a", host="a", vm="web1")
    yield from ((method, path) for method in sorted(route.methods or ()))


REQUESTS = [one for route in routes() for one in asked(route)]

# ------------------------------------------------------------ the table, and who is in it


def test_every_route_names_its_action_and_every_action_is_in_the_table() -> None:
    assert all(action_of(route) in NEEDS for route in routes())
    assert set(NEEDS) == set(Action)
    assert public_paths() == OPEN | {"/v1/ca", "/v1/join", "/v1/renewals"}
    assert public_paths(with_ca=False) == OPEN


@pytest.mark.parametrize("named", [(), (Action.READ, Action.MIGRATE)], ids=["none", "two"])
def test_a_route_that_does_not_name_its_action_keeps_the_controller_from_starting(
    world: World, monkeypatch: pytest.MonkeyPatch, named: tuple[Action, ...]
) -> None:
    class Part:
        router = APIRouter()

    @Part.router.get("/new", dependencies=[needs(a) for a in named])
    async def new() -> None: ...

    monkeypatch.setattr(application, "PARTS", (*application.PARTS, Part))
    with pytest.raises(TypeError, match="/new does not name one action"):
        create_app(world.controller)


def test_each_role_may_what_the_one_before_it_may_and_more() -> None:
    mays = {role: {action for action in Action if may(role, action)} for role in UserRole}
    anybodys = {Action.PROBE, Action.JOIN, Action.SIGN_IN}
    viewing = {Action.SIGN_OUT, Action.READ, Action.EVENTS, Action.METRICS, Action.AUDIT}
    assert mays[UserRole.VIEWER] == anybodys | viewing
    assert mays[UserRole.VIEWER] < mays[UserRole.OPERATOR] < mays[UserRole.ADMIN] == set(Action)
    assert mays[UserRole.NEUTRON] == {*anybodys, Action.HINT} == {*anybodys, *BESIDE[UserRole.NEUTRON]}
    kept = {"declare-dead", "declare-alive", "pin-host", "repair", "rules", "tokens", "log"}
    assert mays[UserRole.ADMIN] - mays[UserRole.OPERATOR] == kept


async def test_nobody_is_let_in_without_authentication(world: World) -> None:
    async with client(served(world.controller), None, raises=False) as http:
        answers = {one: await http.request(*one, json={}) for one in REQUESTS}
    assert {path for (_, path), answer in answers.items() if answer.status_code != 401} == OPEN
    for one, answer in answers.items():
        if answer.status_code == 401:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].endswith(' realm="sterna"')
            (reason,) = answer.json()["reasons"]
            assert reason["code"] == "unauthenticated" and "sterna token create" in reason["fix"], one
    assert world.bus.calls == []


async def test_nor_where_there_is_nothing(world: World) -> None:
    async with client(served(world.controller), None) as http:
        for path in ("/", "/v1/nothing", "/v1/health/", "/redoc", "/v1//health"):
            assert (await http.get(path)).status_code == 401, path


@pytest.mark.parametrize("role", UserRole)
async def test_every_route_is_refused_to_those_who_may_not(world: World, role: UserRole) -> None:
    refused = set()
    async with client(served(world.controller), role, raises=False) as http:
        for route in routes():
            action = action_of(route)
            assert action is not None
            for method, path in asked(route) if not may(role, action) else ():
                answer = await http.request(method, path, json={})
                assert answer.status_code == 403, path
                (reason,) = answer.json()["reasons"]
                message = f"{action} needs the role {NEEDS[action]}; token:{role} has the role {role}"
                assert reason["message"] == message and f"--role {NEEDS[action]}" in reason["fix"]
                refused.add(action)
    assert refused == {a for a in Action if not may(role, a)} - {Action.REPAIR}
    assert world.bus.calls == []


@pytest.mark.parametrize("role", UserRole)
async def test_and_to_nobody_else(world: World, role: UserRole) -> None:
    async with client(served(world.controller), role, raises=False) as http:
        for route in routes():
            action = action_of(route)
            if action is not None and may(role, action) and action is not Action.EVENTS:  # streams do not end
                for method, path in asked(route):
                    assert (await http.request(method, path, json={})).status_code not in (401, 403), path


async def test_looking_for_leftovers_is_reading_and_removing_them_is_not(world: World) -> None:
    async with client(served(world.controller), UserRole.OPERATOR) as http:
        assert (await http.post("/v1/audit", json={})).status_code == 200
        asked_before = list(world.bus.calls)
        assert (await http.post("/v1/audit", json={"repair": True})).status_code == 403
    assert world.bus.calls == asked_before


# ------------------------------------------------------------ tokens


async def test_a_token_opens_until_it_is_removed(api: Api) -> None:
    made = await api.http.post("/v1/tokens", json={"name": "ci", "role": "operator", "days": 1})
    assert made.status_code == 201
    secret = made.json()["token"]
    as_ci = {"Authorization": f"Bearer {secret}"}
    assert (await api.http.patch("/v1/hosts/b", json={"maintenance": True}, headers=as_ci)).status_code == 200
    listed = await api.get("/v1/tokens")
    assert secret not in str(listed)
    (ci,) = listed["tokens"]
    assert (ci["name"], ci["role"], ci["created_by"]) == ("ci", "operator", "token:admin")
    await api.problem("POST", "/v1/tokens", 409, json={"name": "ci", "role": "viewer"})
    assert (await api.http.delete("/v1/tokens/ci")).status_code == 200
    refused = await api.problem("GET", "/v1/hosts", 401, headers=as_ci)
    assert "was removed" in refused["detail"]
    await api.problem("DELETE", "/v1/tokens/ci", 404)


async def test_a_token_that_has_expired_says_so_to_its_holder_only(api: Api) -> None:
    made = await api.http.post("/v1/tokens", json={"name": "ci", "role": "viewer", "days": 1})
    secret = made.json()["token"]
    api.world.clock.ms += 24 * 3600 * 1000 - 1
    assert (await api.http.get("/v1/hosts", headers={"Authorization": f"Bearer {secret}"})).status_code == 200
    api.world.clock.ms += 1
    refused = await api.problem("GET", "/v1/hosts", 401, headers={"Authorization": f"Bearer {secret}"})
    assert "the token ci has expired at 2026-01-02" in refused["detail"]
    guessed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    refused = await api.problem("GET", "/v1/hosts", 401, headers={"Authorization": f"Bearer {guessed}"})
    assert "ci" not in refused["detail"].split() and "expired" not in refused["detail"]


async def test_only_the_hash_of_a_token_is_kept(api: Api) -> None:
    secret = secret_of((await api.http.post("/v1/tokens", json={"name": "ci", "role": "viewer"})).json()["token"])
    (kept,) = await api.world.fleet.tokens()
    assert secret not in kept.model_dump_json()
    assert len(kept.digest) == 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 64},
        {"role": "king"},
        {"days": 0},
        {"days": LONGEST_DAYS + 1},
        {"colour": "blue"},
    ],
    ids=str,
)
async def test_a_token_that_makes_no_sense_is_not_made(api: Api, wrong: dict[str, object]) -> None:
    await api.problem("POST", "/v1/tokens", 422, json={"name": "ci", "role": "viewer"} | wrong)
    assert await api.world.fleet.tokens() == []


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"bearer {TOKENS[UserRole.VIEWER]}", 200),
        (basic(f"anybody:{TOKENS[UserRole.VIEWER]}"), 200),
        (basic(TOKENS[UserRole.VIEWER]), 401),
        ("Basic ?", 401),
        (basic("x:") + "=", 401),
        ("Basic \u00e9", 401),
        ("Basic /w==", 401),
        (f"Digest {TOKENS[UserRole.VIEWER]}", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer \u00e9\u00ff", 401),
        ("", 401),
    ],
)
async def test_how_a_token_may_be_sent(world: World, header: str, status: int) -> None:
    async with client(served(world.controller), None) as http:
        answer = await http.get("/v1/hosts", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == status


# ------------------------------------------------------------ what anybody may know


async def test_anybody_hears_how_the_controller_is_and_nothing_about_hosts(world: World) -> None:
    world.clock.ms += 6_000
    lost = "libvirtd cannot be used: refused"
    await world.bus.beat(world.controller, "a", "c")
    trouble = {"why": lost, "since": "2026-11-29T11:00:00+00:00"}
    await world.controller.registry.beacon("host.b", {"name": "b", "host": None, "trouble": trouble})
    app = served(world.controller)
    for role, seen in ((None, {}), (UserRole.NEUTRON, {}), (UserRole.VIEWER, {"b": lost})):
        async with client(app, role) as http:
            health = (await http.get("/v1/health")).json()
        assert (health["status"], health["hosts_degraded"], health["problems"]) == ("degraded", 1, seen)
    async with client(app, None) as http:
        assert set((await http.get("/v1/version")).json()) == {"version"}
        wrong = {"Authorization": "Bearer nonsense"}
        assert (await http.get("/v1/health", headers=wrong)).json()["problems"] == {}


# ------------------------------------------------------------ browsers, and limits


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://sterna"}, 200),
        ({"Origin": "http://sterna:81"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "127.0.0.1:8774"}, 200),
        ({"Host": "[::1]:8774"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Host": "["}, 400),
        ({"Host": ""}, 400),
    ],
    ids=str,
)
async def test_a_page_of_another_site_changes_nothing(api: Api, headers: dict[str, str], status: int) -> None:
    answer = await api.http.patch("/v1/hosts/b", json={"maintenance": True}, headers=headers)
    assert answer.status_code == status, answer.text
    assert (await api.world.fleet.host("b")).maintenance is (status == 200)


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    large = b'{"vm": "' + b"x" * LARGEST_BODY + b'"}'

    async def in_pieces() -> object:
        for at in range(0, len(large), 65536):
            yield large[at : at + 65536]

    for content in (large, in_pieces()):
        answer = await api.http.post("/v1/migrations", content=content)  # type: ignore[arg-type]
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_page_of_the_documents_loads_nothing(api: Api) -> None:
    answer = await api.http.get("/docs")
    assert answer.status_code == 200 and "/v1/migrations" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text and "http://" not in answer.text and "https://" not in answer.text
    assert "Role: admin" in answer.text


async def test_a_browser_is_asked_for_a_token_where_it_can_show_something(world: World) -> None:
    async with client(served(world.controller), None) as http:
        assert (await http.get("/docs")).headers["www-authenticate"].startswith("Basic")
        assert (await http.get("/v1/hosts")).headers["www-authenticate"].startswith("Bearer")


async def test_every_answer_has_the_id_of_its_request(world: World) -> None:
    async with client(served(world.controller)) as http:
        ids = {
            (await http.get(p, headers=bearing())).headers["x-request-id"]
            for p in ("/v1/hosts", "/v1/health", "/x")
        }
    assert len(ids) == 3


# ------------------------------------------------------------ the audit log


async def test_what_changes_something_is_in_the_log_with_its_answer(api: Api) -> None:
    started = await api.http.post("/v1/migrations", json=body())
    await api.http.post("/v1/migrations", json=body(id="33333333-3333-4333-8333-333333333333"))
    await api.http.patch("/v1/hosts/b", json={"maintenance": True}, headers=bearing(UserRole.OPERATOR))
    await api.http.post("/v1/hosts/b/declare-alive", headers=bearing(UserRole.VIEWER))
    await api.get("/v1/hosts")
    lines = (await api.get("/v1/log"))["lines"]
    assert [(x["actor"], x["action"], x["target"], x["status"]) for x in lines] == [
        ("token:viewer", "declare-alive", "b", 403),
        ("token:operator", "maintenance", "b", 200),
        ("token:admin", "migrate", "web1", 409),
        ("token:admin", "migrate", "web1", 202),
    ]
    assert lines[-1]["request"] == started.headers["x-request-id"]
    assert (lines[-1]["body"]["destination"], lines[-1]["origin"]) == ("b", "127.0.0.1")
    for query, number in (
        ("actor=token:operator", 1),
        ("action=migrate", 2),
        ("target=b", 2),
        (f"request={lines[0]['request']}", 1),
        ("since=2999-01-01", 0),
        ("since=2025-01-01", 4),
    ):
        assert len((await api.get(f"/v1/log?{query}"))["lines"]) == number, query
    first = await api.get("/v1/log?limit=3")
    rest = await api.get(f"/v1/log?limit=3&cursor={first['next_cursor']}")
    assert first["lines"] + rest["lines"] == lines and rest["next_cursor"] is None


async def test_a_token_is_not_in_the_log(api: Api) -> None:
    secret = secret_of((await api.http.post("/v1/tokens", json={"name": "ci", "role": "viewer"})).json()["token"])
    (line,) = (await api.get("/v1/log"))["lines"]
    assert (line["action"], line["target"]) == ("tokens", "ci")
    assert secret not in str(line)


async def test_a_bug_is_logged_as_the_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(api.world.controller, "abort", broken)
    assert (await api.http.post(f"/v1/migrations/{ID}/abort")).status_code == 500
    (line,) = (await api.get("/v1/log"))["lines"]
    assert (line["action"], line["target"], line["status"]) == ("abort", ID, 500)


async def test_what_cannot_be_logged_is_not_done(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("the database is away")

    monkeypatch.setattr(api.world.fleet, "log_asked", away)
    await api.problem("PATCH", "/v1/hosts/b", 503, json={"maintenance": True})
    assert not (await api.world.fleet.host("b")).maintenance


@pytest.mark.parametrize("raw", [b'{"vm": "a\\u001b[2Jb"}', b'{"vm": "a\\u0000b"}', b'{"vm": "\\ud800"}'])
async def test_text_that_steers_a_terminal_is_written_out_in_the_log(api: Api, raw: bytes) -> None:
    await api.http.post("/v1/migrations", content=raw, headers={"content-type": "application/json"})
    (line,) = (await api.get("/v1/log"))["lines"]
    assert line["target"].isprintable() and line["target"] == line["body"]["vm"]


STRANGE = {
    "deep": b"[" * 2000,
    "deep in an object": b'{"vm": ' + b"[" * 900 + b"]" * 900 + b"}",
    "no number": b'{"vm": NaN, "host": Infinity, "x": 1e999}',
    "a large number": b'{"vm": ' + b"9" * 4000 + b"}",
    "keys": b'{"\\ud800": 1, "\\u0000": {"a": {"b": [1, [2]]}}}',
    "no text": b"\xff\xfe",
    "a list": b'["vm"]',
}


@pytest.mark.parametrize("raw", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("path", [f"/v1/migrations/{ID}/abort", "/v1/migrations"])
async def test_whatever_is_sent_the_log_can_be_written_and_read(api: Api, path: str, raw: bytes) -> None:
    """A route that takes no body has not looked at it."""
    answer = await api.http.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404, 422), answer.text
    assert all(line["status"] == answer.status_code for line in (await api.get("/v1/log"))["lines"])


async def test_what_was_asked_for_is_in_the_log_in_its_own_words(api: Api) -> None:
    wish = {"policy": "gentle", "may": ["pause"], "max_downtime_ms": 300, "finish_within_s": 1.5}
    await api.http.post("/v1/migrations", json=body(**wish))
    assert (await api.get("/v1/log"))["lines"][0]["body"] == body(**wish)


def test_only_known_requests_that_change_something_are_not_logged() -> None:
    changing = {action_of(r) for r in routes() if (r.methods or set()) - SAFE}
    assert changing & UNLOGGED == {Action.AUDIT, Action.EXAMINE, Action.HINT} == UNLOGGED
