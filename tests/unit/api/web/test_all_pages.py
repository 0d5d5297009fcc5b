"""What holds for every page: what is offered may be done, and can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from sterna.api.access import action_of
from sterna.api.app import routes
from sterna.api.peers import Peer
from sterna.api.web.assets import FOLDER
from sterna.api.web.parts import PAGES
from sterna.domain.access import UserRole, may
from tests.unit.api.web.browser import Browser, Page
from tests.unit.controller.conftest import World
from tests.unit.controller.requests import request

ELSEWHERE = ("/docs", "#", "mailto:")


def route_of(method: str, path: str) -> APIRoute:
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path.partition("?")[0],
        "root_path": "",
        "headers": [],
    }
    return next(one for one in routes() if one.matches(scope)[0] is Match.FULL)


def actions_of(page: Page) -> Iterator[str]:
    """Where its forms go, and their buttons."""
    for form in page.tree.iter("form"):
        if form.get("method") == "post":
            yield form.get("action")
            yield from (button.get("formaction") for button in form.iter("button") if button.get("formaction"))


@pytest.mark.parametrize("role", [UserRole.VIEWER, UserRole.OPERATOR, UserRole.ADMIN])
async def test_what_is_offered_may_be_done(app: FastAPI, world: World, role: UserRole) -> None:
    """Every page that links lead to can be read, and every form on it be sent."""
    await world.controller.migrate(request())
    browser = Browser(app)
    await browser.sign_in(role)
    seen, waiting = set[str](), ["/", "/vms", f"/vms/{world.web1}"]
    forms = set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith(ELSEWHERE) or path.startswith("?"):
            continue
        seen.add(path)
        answer = await browser.http.get(path)
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        page = await browser.get(path)
        waiting += [link for link in page.links() if link]
        forms |= set(actions_of(page))
    for action in forms:
        needed = action_of(route_of("POST", action))
        assert needed is not None and may(role, needed), action
    assert len(seen) >= 10 and len(forms) == {"viewer": 2, "operator": 11, "admin": 11}[role]


def test_no_page_is_in_the_document_of_the_api() -> None:
    pages = [route for part in PAGES for route in part.router.routes]
    assert len(pages) > 30
    assert all(isinstance(one, APIRoute) and not one.include_in_schema for one in pages)


# ------------------------------------------------------------ users of the Unix socket


async def test_who_comes_through_the_unix_socket_needs_no_sign_in(app: FastAPI, world: World) -> None:
    async def here(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["peer"] = Peer(pid=1, uid=0, gids=frozenset())
        await app(scope, receive, send)

    browser = Browser(here)  # type: ignore[arg-type]
    page = await browser.get("/hosts/b")
    assert "user:root (admin)" in page.text and "/sign-out" not in page.forms()
    assert (await browser.http.get("/v1/hosts")).status_code == 200
    await browser.post("/hosts/b/close", {"reason": "x"}, 403)  # a forwarded socket is open to any page, too
    await browser.send(page, "/hosts/b/close", reason="x")
    assert (await world.fleet.host("b")).maintenance


# ------------------------------------------------------------ colours


def colours() -> list[dict[str, str]]:
    """The variables of the style sheet: light, and dark."""
    text = (FOLDER / "sterna.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it: 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(theme: int) -> None:
    known = colours()[theme]
    pairs = [
        *product(("text", "quiet", "link", "good", "warn", "bad"), ("ground", "raised")),
        ("on-button", "button"),
    ]
    found = {(one, on): round(contrast(known[one], known[on]), 2) for one, on in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}
