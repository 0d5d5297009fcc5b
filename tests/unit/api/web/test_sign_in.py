"""A token becomes a session, which opens the pages and nothing else, for a while."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import FastAPI

from sterna.api.sessions import COOKIE, IDLE_S, LONGEST_S, MOST_OF_ONE, Sessions
from sterna.api.web.pages import place
from sterna.domain.access import UserRole
from tests.unit.api.clients import TOKENS, bearing, client
from tests.unit.api.web.browser import ACCEPT, Browser
from tests.unit.controller.conftest import World


def cookie(browser: Browser) -> str:
    return str(browser.http.cookies.get(COOKIE))


async def test_who_is_not_known_is_led_to_the_sign_in_and_back(stranger: Browser) -> None:
    away = await stranger.get("/hosts/a?cursor=x", 303)
    assert away.answer.headers["location"] == "/sign-in?to=%2Fhosts%2Fa%3Fcursor%3Dx"
    form = await stranger.follow(away)
    back = await stranger.send(form, "/sign-in", token=TOKENS[UserRole.VIEWER])
    assert back.answer.headers["location"] == "/hosts/a?cursor=x"
    assert "token:viewer" in (await stranger.get("/")).text
    assert (await stranger.get("/sign-in", 303)).answer.headers["location"] == "/"


async def test_an_open_page_whose_session_has_ended_leads_to_the_sign_in(stranger: Browser) -> None:
    answer = await stranger.http.get("/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"], answer.text) == (401, "/sign-in", "")


async def test_the_cookie_is_for_this_host_and_its_own_pages(stranger: Browser) -> None:
    before = (await stranger.get("/sign-in")).answer.headers["set-cookie"]
    after = (await stranger.sign_in()).answer.headers["set-cookie"]
    for header in (before, after):
        assert header.startswith("__Host-sterna=") and "domain" not in header.lower()
        for word in ("HttpOnly", "Path=/", "SameSite=strict", "Secure"):
            assert word in header
    assert before.split(";")[0] != after.split(";")[0], "a cookie from before the sign-in is worth nothing"


async def test_a_session_does_not_open_the_api(operator: Browser) -> None:
    assert (await operator.http.get("/v1/hosts")).status_code == 401
    assert (await operator.http.get("/docs")).status_code == 200


async def test_signing_out_ends_the_session_here_as_well(operator: Browser) -> None:
    kept = cookie(operator)
    page = await operator.get("/")
    gone = await operator.send(page, "/sign-out")
    assert gone.answer.headers["location"] == "/sign-in" and COOKIE not in operator.http.cookies
    await operator.get("/", 303, headers={"Cookie": f"{COOKIE}={kept}"})


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        ("", 401, "is unknown, or was removed"),
        ("sterna_0123456789ab_" + "x" * 43, 401, "sterna token create"),
        ("<script>alert(1)</script>", 401, "is unknown, or was removed"),
        (TOKENS[UserRole.NEUTRON], 403, "Neutron"),
    ],
)
async def test_a_token_that_opens_nothing_is_refused(
    stranger: Browser, token: str, status: int, words: str
) -> None:
    form = await stranger.get("/sign-in")
    refused = await stranger.send(form, "/sign-in", status, token=token)
    assert words in refused.text and "<script>alert" not in refused.answer.text
    await stranger.get("/", 303)


async def test_a_form_of_another_browser_signs_nobody_in(app: FastAPI, stranger: Browser) -> None:
    """Else somebody could be made to work in another one's name."""
    other = Browser(app)
    fields = (await other.get("/sign-in")).forms()["/sign-in"] | {"token": TOKENS[UserRole.VIEWER]}
    without = await stranger.post("/sign-in", fields, 400)
    assert "kept the cookie" in without.text
    await stranger.get("/sign-in")
    await stranger.post("/sign-in", fields, 403)
    await stranger.get("/", 303)


async def test_a_removed_token_ends_its_sessions(stranger: Browser, world: World) -> None:
    _, secret = await world.controller.users.create("ci", UserRole.VIEWER, 1, "user:root")
    await stranger.sign_in(token=secret)
    assert "token:ci" in (await stranger.get("/")).text
    await world.controller.users.remove("ci", "user:root")
    await stranger.get("/", 303)


async def test_a_sign_in_is_in_the_audit_log_without_the_token(app: FastAPI, operator: Browser) -> None:
    await operator.post("/sign-in", (await Browser(app).get("/sign-in")).forms()["/sign-in"], 403)
    async with client(app, UserRole.ADMIN) as http:
        lines = (await http.get("/v1/log?action=sign-in")).json()["lines"]
    assert [(one["actor"], one["status"], one["body"]) for one in lines] == [("token:operator", 303, {})]


async def test_forms_are_not_logged_with_what_is_secret(app: FastAPI, operator: Browser) -> None:
    page = await operator.get("/hosts/b")
    await operator.send(page, "/hosts/b/close", reason="new \x1b[31mfans")
    async with client(app, UserRole.ADMIN) as http:
        (line,) = (await http.get("/v1/log?action=maintenance")).json()["lines"]
    assert (line["body"], line["target"], line["status"]) == ({"reason": "new \\x1b[31mfans"}, "b", 303)


@pytest.mark.parametrize("form_token", ["", "wrong", "é"])
async def test_a_form_without_its_token_does_nothing(operator: Browser, world: World, form_token: str) -> None:
    refused = await operator.post("/hosts/b/close", {"form_token": form_token}, 403)
    assert "load the page again" in refused.text
    assert not (await world.fleet.host("b")).maintenance


async def test_a_form_of_another_session_does_nothing(app: FastAPI, operator: Browser, world: World) -> None:
    other = Browser(app)
    await other.sign_in(UserRole.ADMIN)
    fields = (await other.get("/hosts/b")).forms()["/hosts/b/close"]
    await operator.post("/hosts/b/close", fields, 403)
    assert not (await world.fleet.host("b")).maintenance


async def test_a_page_of_another_site_cannot_send_a_form(operator: Browser, world: World) -> None:
    fields = (await operator.get("/hosts/b")).forms()["/hosts/b/close"]
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        assert (await operator.http.post("/hosts/b/close", data=fields, headers=headers)).status_code == 403
    assert not (await world.fleet.host("b")).maintenance


async def test_basic_authentication_is_no_way_around_the_form_token(app: FastAPI, world: World) -> None:
    """A browser sends it by itself."""
    basic = httpx2.BasicAuth("me", TOKENS[UserRole.OPERATOR])
    async with client(app, None) as http:
        assert (await http.post("/hosts/b/close", data={"reason": "x"}, auth=basic)).status_code == 403
        sent = await http.post("/hosts/b/close", data={"reason": "x"}, headers=bearing(UserRole.OPERATOR))
        assert sent.status_code == 303
    assert (await world.fleet.host("b")).maintenance


async def test_a_link_of_another_site_finds_the_session(operator: Browser) -> None:
    """A browser sends no cookie with it; to the same address, from a page of ours, it does."""
    kept = cookie(operator)
    operator.http.cookies.clear()
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = await operator.http.get('/hosts/a?x="><b>', headers=headers)
    assert answer.status_code == 200 and "http-equiv" in answer.text and '"><b>' not in answer.text
    await operator.get("/hosts/a?again=1", 303, headers=headers)
    await operator.get("/hosts/a?again=1", headers={"Cookie": f"{COOKIE}={kept}"})


@pytest.mark.parametrize("path", ["//evil.example/x", "/%2Fevil.example/x", "/\\evil.example/x"])
@pytest.mark.parametrize("site", ["cross-site", "none"])
async def test_a_path_that_looks_like_another_site_leads_nowhere(stranger: Browser, path: str, site: str) -> None:
    answer = await stranger.http.get(f"https://sterna{path}", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == (200 if site == "cross-site" else 303)
    led = answer.headers.get("location", "") + answer.text
    assert '"//' not in led and "url=//" not in led and "to=%2F%2F" not in led and "\\" not in led


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:1", "", "/\n/x"]
)
def test_nobody_is_led_elsewhere(to: str) -> None:
    assert place(to) == "/"
    assert place("/hosts/a?x=1") == "/hosts/a?x=1"


async def test_programs_get_problems_and_browsers_pages(app: FastAPI, admin: Browser) -> None:
    async with client(app, UserRole.ADMIN) as http:
        for path in ("/hosts/z", "/nothing"):
            assert (await http.get(path)).headers["content-type"] == "application/problem+json"
            page = await admin.get(path, 404)
            assert page.answer.headers["content-type"].startswith("text/html")
    assert (await admin.http.get("/v1/nothing", headers=ACCEPT | bearing())).json()["status"] == 404


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_nobody_asks_and_at_the_latest_after_half_a_day() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    idle, busy = sessions.begin("", "a"), sessions.begin("", "b")
    began = clock.now
    while clock.now - began < LONGEST_S:
        assert sessions.find(busy)
        clock.now += IDLE_S - 1
    assert not sessions.find(busy) and not sessions.find(idle)
    idle = sessions.begin("", "a")
    clock.now += IDLE_S + 1
    assert not sessions.find(idle)


def test_what_an_open_page_asks_by_itself_keeps_no_session() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    left = sessions.begin("", "a")
    clock.now += IDLE_S - 1
    assert sessions.find(left, used=False)
    clock.now += 2
    assert not sessions.find(left, used=False)


def test_one_token_has_so_many_sessions_and_no_more() -> None:
    sessions = Sessions(Clock())
    other = sessions.begin("", "b")
    own = [sessions.begin("", "a") for _ in range(MOST_OF_ONE + 1)]
    assert [bool(sessions.find(one)) for one in own] == [False] + [True] * MOST_OF_ONE
    assert sessions.find(other)


def test_a_form_token_is_of_one_cookie_and_one_process() -> None:
    sessions = Sessions()
    assert sessions.is_form_token(sessions.form_token("a"), "a")
    assert not sessions.is_form_token(sessions.form_token("a"), "b")
    assert not Sessions().is_form_token(sessions.form_token("a"), "a")
