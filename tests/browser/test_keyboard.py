"""Sign in, plan, migrate and abort, without a mouse."""

from __future__ import annotations

from sterna.domain.access import UserRole
from tests.browser.chromium import Chromium
from tests.browser.pages import OF_THE_KEYBOARD
from tests.browser.serving import Served
from tests.unit.api.clients import TOKENS


def test_a_migration_from_sign_in_to_abort_by_keyboard(chromium: Chromium, fleet: Served) -> None:
    with chromium.look(fleet.address) as look:
        page = look.go("/vms?name=" + OF_THE_KEYBOARD)
        assert page.evaluate("document.activeElement.id") == "token", "the field has the focus"
        page.keyboard.type(TOKENS[UserRole.OPERATOR])
        look.press("Enter")
        page.wait_for_url("**/vms?name=*")
        look.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip", "the first stop leads to the content"
        look.press("Enter")
        look.tab_to("td a[href^='/vms/']")
        look.press("Enter")
        page.wait_for_selector("h1:has-text('VM ')")

        look.tab_to("select[name=destination]")
        page.keyboard.type("kvm-a06")
        look.tab_to("form[action$='/plan'] button:not([formaction])")
        look.press("Enter")
        page.wait_for_selector("text=No blockers")
        assert page.input_value("select[name=destination]") == "kvm-a06", "what was asked for is kept"

        look.tab_to("button[formaction$='/migrate']")
        look.press("Enter")
        page.wait_for_url("**/migrations/*")
        page.wait_for_selector("#now :text('migrating')")
        look.tab_to("form[action$='/abort'] button")
        look.press("Enter")
        page.wait_for_selector("#now :text('cancelled')")
        assert page.query_selector("form[action$='/abort']") is None, "what is over is not offered"
    assert look.complaints == []
