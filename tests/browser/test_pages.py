"""Every page, on a wide screen and on a phone, light and dark: nothing is wrong with it. Pictures: out/browser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import Page

from tests.browser import stories
from tests.browser.chromium import SCHEMES, WIDTHS, Chromium, Look, Scheme
from tests.browser.pages import PAGES, PLANNED
from tests.browser.scene import RUNNING
from tests.browser.serving import Served

SEEN = [(size, scheme) for size in WIDTHS for scheme in SCHEMES]
Cookies = list[dict[str, object]]


def plan(page: Page) -> None:
    page.click("text=Plan: change nothing")
    page.wait_for_selector("#plan")


def drain(page: Page) -> None:
    page.click("summary")
    page.click("text=Show the plan")
    page.wait_for_selector("text=Start the drain")


def audit(page: Page) -> None:
    page.click("text=Search for leftovers")
    page.wait_for_selector("h2")


STEPS: dict[str, Callable[[Page], None]] = {"plan": plan, "drain-preview": drain, "audit-found": audit}


@pytest.mark.parametrize(("size", "scheme"), SEEN)
def test_nothing_is_wrong_with_any_page(
    chromium: Chromium, fleet: Served, admin: Cookies, size: str, scheme: Scheme
) -> None:
    found: dict[str, list[str]] = {}

    def check(name: str, look: Look) -> None:
        look.picture(f"{name}-{size}-{scheme}")
        found[name] = look.faults()
        look.complaints.clear()

    with chromium.look(fleet.address, WIDTHS[size], scheme) as look:
        look.go("/sign-in")
        check("sign-in", look)
        look.page.context.add_cookies(admin)  # type: ignore[arg-type, unused-ignore]
        for name, path in PAGES.items():
            look.go(path)
            check(name, look)
        for name, (path, step) in {name: (path, STEPS[name]) for name, path in PLANNED.items()}.items():
            step(look.go(path))
            check(name, look)
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_page_can_be_read_without_javascript(chromium: Chromium, fleet: Served, admin: Cookies) -> None:
    """All of it but the chart; what would be live says that it is not."""
    with chromium.look(fleet.address, java_script_enabled=False) as look:
        look.page.context.add_cookies(admin)  # type: ignore[arg-type, unused-ignore]
        for name, path in PAGES.items():
            page = look.go(path)
            assert page.inner_text("h1"), name
            assert "undefined" not in page.inner_text("main"), name
        page = look.go(PAGES["migration-running"])
        assert "not updated yet" in page.inner_text("main")
        assert page.locator("noscript a").is_visible()
        page = look.go("/?name=kvm-b")
        page.click("text=Filter")
        assert "6 of 18 hosts" in page.inner_text("main")
    assert look.complaints == []


def test_a_migration_is_live_and_has_a_chart(chromium: Chromium, fleet: Served, admin: Cookies) -> None:
    with chromium.look(fleet.address) as look:
        look.page.context.add_cookies(admin)  # type: ignore[arg-type, unused-ignore]
        page = look.go(PAGES["migration-running"])
        page.wait_for_selector("#connection:text-is('live')")
        for sample in stories.LATER:
            fleet.do(partial(stories.copy_on, fleet.scene, RUNNING, [sample]))
            at_s = (sample.elapsed_ms or 0) / 1000
            page.wait_for_selector(f"#point[data-point^='[{at_s},']", state="attached")
        assert page.locator("#chart canvas").is_visible()
        assert page.locator("#chart").get_attribute("role") == "img", "it has words for those who do not see it"
        look.picture("migration-live-wide-light")
    assert look.complaints == []
