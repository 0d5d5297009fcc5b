"""A browser without a screen: it keeps cookies, reads forms, and sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx2
import lxml.html
from fastapi import FastAPI

from sterna.domain.access import UserRole
from tests.unit.api.clients import TOKENS
from tests.unit.api.web.markup import wrong_with

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e"
"""What somebody may call a VM, or write as a reason."""
ACCEPT = {"Accept": "text/html,application/xhtml+xml"}


@dataclass
class Page:
    """One answer."""

    answer: httpx2.Response
    tree: Any = field(init=False)

    def __post_init__(self) -> None:
        self.tree = lxml.html.fromstring(self.answer.text) if self.answer.text else None

    @property
    def text(self) -> str:
        """What a reader reads of it."""
        return " ".join(" ".join(self.tree.itertext()).split())

    @property
    def status(self) -> int:
        return self.answer.status_code

    def forms(self) -> dict[str, dict[str, list[str]]]:
        """Where each form goes, and what it sends without a change."""
        return {form.get("action"): self._fields(form) for form in self.tree.iter("form") if form.get("action")}

    def _fields(self, form: Any) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in form.form_values():
            found.setdefault(name, []).append(value)
        return found

    def links(self) -> set[str]:
        return {one.get("href") for one in self.tree.iter("a")}


class Browser:
    """One person's."""

    def __init__(self, app: FastAPI, origin: str = "127.0.0.1") -> None:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False, client=(origin, 123))
        self.http = httpx2.AsyncClient(transport=transport, base_url="https://sterna", headers=ACCEPT)

    async def get(self, path: str, status: int = 200, **more: Any) -> Page:
        """A page that is well-formed and has the headers of all."""
        page = Page(await self.http.get(path, **more))
        assert page.status == status, page.answer.text
        if page.answer.text and page.answer.headers["content-type"].startswith("text/html"):
            assert wrong_with(page.answer.text) == []
            policy = page.answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy and "unsafe" not in policy
            assert page.answer.headers["cache-control"] == "no-store"
        return page

    async def send(self, page: Page, action: str, status: int = 303, **fields: Any) -> Page:
        """The form of a page that goes there, with some fields filled in."""
        return await self.post(action, page.forms()[action] | fields, status)

    async def post(self, action: str, fields: dict[str, Any], status: int = 303) -> Page:
        answer = await self.http.post(action, data=fields, headers={"Origin": "https://sterna"})
        assert answer.status_code == status, answer.text
        if answer.text:
            assert wrong_with(answer.text) == []
        return Page(answer)

    async def follow(self, page: Page) -> Page:
        return await self.get(page.answer.headers["location"])

    async def sign_in(self, role: UserRole = UserRole.OPERATOR, token: str = "") -> Page:
        form = await self.get("/sign-in")
        return await self.send(form, "/sign-in", token=token or TOKENS[role])


def events_of(text: str) -> list[tuple[str, str, str]]:
    """Of an event stream: name, ID and data of each."""
    found = []
    for block in text.split("\n\n"):
        fields = [line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":")]
        values = {name: "\n".join(v for n, v in fields if n == name) for name, _ in fields}
        if "event" in values:
            found.append((values["event"], values.get("id", ""), values.get("data", "")))
    return found
