"""Debian's Chromium, driven by Playwright, and what it finds wrong with a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from sterna.domain.access import UserRole
from tests.unit.api.clients import TOKENS

HERE = Path(__file__).parents[2]
AXE = HERE / ".cache" / "axe-core" / "axe.min.js"
PICTURES = HERE / "out" / "browser"
FLAGS = (
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = {"wide": 1280, "phone": 390}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
LONGEST_MS = 60_000
"""Of one step: on a machine that does much else, Chromium takes its time."""
_TOO_WIDE = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const all = [...document.querySelectorAll("body *")];
  const wide = all.filter((one) => one.getBoundingClientRect().right > root.clientWidth + 1);
  return wide.slice(-3).map((one) => one.outerHTML.slice(0, 160));
}"""
_AXE = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const bad = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  return bad.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`);
}"""


class Look:
    """One tab of a browser, and what it has complained about."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        page.set_default_timeout(LONGEST_MS)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        missing = "status of 404" in message.text and urlsplit(self.page.url).path == "/hosts/nowhere"
        if message.type in ("error", "warning") and not missing:
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:")):
            self.complaints.append(f"a request to elsewhere: {request.url}")

    def go(self, path: str) -> Page:
        """To a page of the controller."""
        self.page.goto(self.address + path)
        return self.page

    def press(self, *keys: str) -> None:
        """One key after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector: str) -> None:
        """By the keyboard alone, from where the focus is. Raises AssertionError where that leads nowhere."""
        for _ in range(200):
            if self.page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                return
            self.press("Tab")
        raise AssertionError(f"the keyboard does not reach {selector}")

    def faults(self) -> list[str]:
        """Whatever is wrong with the page as it is now."""
        wide = [f"it scrolls sideways: {one}" for one in self.page.evaluate(_TOO_WIDE)]
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        return [*self.complaints, *wide, *self.page.evaluate(_AXE)]

    def picture(self, name: str) -> None:
        """The whole page, into out/browser."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size or {"width": 1280, "height": 900}
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size(
            {"width": size["width"], "height": min(height, 8000)}
        )  # what is far off is not drawn
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
        self.page.set_viewport_size(size)


class Chromium:
    """A running browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @contextmanager
    def look(self, address: str, width: int = 1280, scheme: Scheme = "light", **more: Any) -> Iterator[Look]:
        """A person of their own. `more`: as Playwright's `new_context`."""
        size = {"width": width, "height": 900 if width > 500 else 844}
        context = self._browser.new_context(viewport=size, color_scheme=scheme, **more)  # type: ignore[arg-type, unused-ignore]
        try:
            yield Look(context.new_page(), address)
        finally:
            context.close()

    def cookies(self, address: str, role: UserRole) -> list[dict[str, object]]:
        """Of one who has signed in."""
        with self.look(address) as look:
            page = look.go("/sign-in")
            page.fill("#token", TOKENS[role])
            page.click("main button")
            page.wait_for_url(f"{address}/")
            context: BrowserContext = page.context
            return [dict(one) for one in context.cookies()]


@contextmanager
def started() -> Iterator[Chromium]:
    """While the block lasts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=FLAGS, timeout=3 * LONGEST_MS
        )
        try:
            yield Chromium(browser)
        finally:
            browser.close()
