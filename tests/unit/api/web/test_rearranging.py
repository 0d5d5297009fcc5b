"""The pages of a rebalance and a bring-back: nothing begins that was not shown before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.domain.access import UserRole
from sterna.domain.fleet.course import OperationStatus
from tests.unit.api.clients import served
from tests.unit.api.web.browser import HOSTILE, Browser
from tests.unit.controller.operating import Stage

SHOW, BEGIN = "/rearrangements/preview", "/rearrangements"


@pytest.fixture
async def browser(stage: Stage) -> AsyncIterator[Browser]:
    browser = Browser(served(stage.controller))
    await browser.sign_in(UserRole.OPERATOR)
    yield browser
    await browser.http.aclose()


async def test_a_rebalance_is_offered_shown_and_begun_where_it_is_on(stage: Stage, browser: Browser) -> None:
    await stage.refresh()
    listed = await browser.get("/operations")
    shown = await browser.send(listed, SHOW, 200, threshold_percent="10", reason=HOSTILE)
    assert "VMs that move 2" in shown.text and "Fullest host 19 %" in shown.text
    assert BEGIN not in shown.forms() and "rebalance = true" in shown.text
    assert "<script>alert" not in shown.answer.text
    stage.controller.operate.may_rebalance = True
    shown = await browser.send(listed, SHOW, 200, threshold_percent="10")
    begun = await browser.follow(await browser.send(shown, BEGIN))
    assert "Rebalance: all hosts" in begun.text and "differ by no more than 10 %" in begun.text
    (record,) = await stage.controller.fleet.unfinished_operations()
    assert (await stage.run(id=record.id)).status is OperationStatus.DONE
    assert len(stage.moved) == 2
    nothing = await browser.send(listed, SHOW, 200, threshold_percent="10")
    assert "No VM would move: no move is worth it" in nothing.text and BEGIN not in nothing.forms()
    await browser.send(listed, SHOW, 422, threshold_percent="ten")


async def test_a_return_is_offered_on_the_page_of_a_host(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    await stage.run()
    await stage.controller.registry.set_maintenance("a", False)
    shown = await browser.send(await browser.get("/hosts/a"), SHOW, 200)
    assert "What a bring-back to a would do" in shown.text and "VMs that move 3" in shown.text
    begun = await browser.follow(await browser.send(shown, BEGIN))
    assert "Bring-back: a" in begun.text and "To be brought back 3 VMs" in begun.text
    (record,) = await stage.controller.fleet.unfinished_operations()
    assert (await stage.run(id=record.id)).status is OperationStatus.DONE
    assert set(stage.places().values()) == {"a"}
    refused = await browser.send(await browser.get("/hosts/a"), SHOW, 422)
    assert "has moved a VM away from a" in refused.text


async def test_a_viewer_may_not_begin_either(stage: Stage) -> None:
    viewer = Browser(served(stage.controller))
    await viewer.sign_in(UserRole.VIEWER)
    forms = (await viewer.get("/operations")).forms()
    assert SHOW not in forms
    await viewer.post(BEGIN, {**forms["/sign-out"], "kind": "rebalance"}, 403)
    await viewer.http.aclose()
