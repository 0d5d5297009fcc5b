"""The page of the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.domain.access import UserRole
from tests.unit.api.clients import served
from tests.unit.api.web.browser import Browser
from tests.unit.controller.operating import OPERATION, Stage


@pytest.fixture
async def browser(stage: Stage) -> AsyncIterator[Browser]:
    browser = Browser(served(stage.controller))
    await browser.sign_in(UserRole.VIEWER)
    yield browser
    await browser.http.aclose()


async def test_what_waits_has_its_reason_once(stage: Stage, browser: Browser) -> None:
    assert "No migration waits." in (await browser.get("/queue")).text
    for number in range(4, 9):
        stage.bus.agents["a"].add_vm(f"x{number}", number)
    await stage.begin("a")
    assert f"Operation {OPERATION[:8]} : no controller has planned it yet" in (await browser.get("/queue")).text
    await stage.tick()
    waits = (await stage.operation()).standing.waits
    page = await browser.get("/queue")
    assert f"Drain {OPERATION[:8]} : a" in page.text and len(waits) > 1
    reasons = [one.text_content() for one in page.tree.xpath("//ul[@class='waits']/li/p")]
    assert reasons == [
        "2 VMs wait: a has accepted it, but has not started",
        "6 VMs wait: the link out of a already carries 2 copies: x1, x2",
    ]
    assert {f"/vms/{one.vm}" for one in waits} <= page.links() and f"/operations/{OPERATION}" in page.links()


async def test_filters(stage: Stage, browser: Browser) -> None:
    for number in range(4, 9):
        stage.bus.agents["a"].add_vm(f"x{number}", number)
    await stage.begin("a")
    await stage.tick()
    assert "No migration waits that matches this filter." in (await browser.get("/queue?host=z")).text
    only = await browser.get(f"/queue?operation={OPERATION}")
    assert "Only of operation" in only.text and "/queue" in only.links() and "x8" in only.text
    assert "Drain" not in (await browser.get(f"/queue?operation={OPERATION[:-1]}9")).text
    fleet = await browser.get("/")
    assert f"/queue?operation={OPERATION}" in fleet.links()
