"""The pages of operations: what moves, what waits, what stays, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.api.web.operations import offered, promise_of
from sterna.api.web.pages import TEMPLATES
from sterna.domain.access import UserRole
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.stages import Between
from sterna.domain.model import GuestState
from tests.unit.api.clients import served
from tests.unit.api.web.browser import HOSTILE, Browser
from tests.unit.controller.operating import OPERATION, Stage

PATH = f"/operations/{OPERATION}"


@pytest.fixture
async def browser(stage: Stage) -> AsyncIterator[Browser]:
    browser = Browser(served(stage.controller))
    await browser.sign_in(UserRole.OPERATOR)
    yield browser
    await browser.http.aclose()


async def test_what_moves_waits_and_stays_has_its_reason(stage: Stage, browser: Browser) -> None:
    stage.set_state("x3", GuestState.PAUSED)
    stage.bus.agents["a"].add_vm("x4", 4)
    await stage.begin("a", reason=HOSTILE)
    await stage.tick()
    page = await browser.get(PATH)
    assert "x3 a x3 cannot be migrated: it is paused" in page.text
    assert "x4" in page.text and "Waiting migrations, and what they wait for" in page.text
    assert HOSTILE[:-1] in page.text and "<script>alert" not in page.answer.text
    assert page.text.index("VMs that stay") < page.text.index("State"), "what is in the way comes first"
    assert page.tree.xpath("//*[@id='operation' and @hx-trigger='every 2s']")
    titles = page.tree.xpath("//div[@class='drawing']/svg//g[@class='move started']/title")
    assert [one.text.partition(" to ")[0] for one in titles] == ["x1", "x2"]
    listed = await browser.get("/operations?status=running")
    assert PATH in listed.links() and PATH not in (await browser.get("/operations?status=done")).links()


async def test_orders_are_offered_as_they_can_be_given(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    page = await browser.get(PATH)
    for order, status, then in (
        ("pause", "paused", {"resume", "stop"}),
        ("resume", "running", {"pause", "stop"}),
        ("stop", "stopping", set()),
    ):
        page = await browser.follow(await browser.send(page, f"{PATH}/{order}"))
        assert f"Status {status}" in page.text
        assert {path.rpartition("/")[2] for path in page.forms()} - {"sign-out"} == then
    fields = page.forms()["/sign-out"]
    assert "cannot be changed with resume" in (await browser.post(f"{PATH}/resume", fields, 409)).text
    await browser.post(f"{PATH}/explode", fields, 404)


async def test_an_undo_is_shown_before_it_begins(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    await stage.run()
    done = await browser.get(PATH)
    assert f"{PATH}/undo" in done.links() and not done.tree.xpath("//*[@hx-trigger]")
    preview = await browser.get(f"{PATH}/undo")
    assert "VMs to be migrated back 3" in preview.text and "Hosts opened again a" in preview.text
    assert "x1" in preview.text and (await stage.operation()).status is OperationStatus.DONE
    begun = await browser.follow(await browser.send(preview, f"{PATH}/undo"))
    assert "Status undoing" in begun.text
    await stage.run()
    assert "Status undone" in (await browser.get(PATH)).text


async def test_a_vm_that_somebody_moved_since_stays(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    await stage.run()
    (vm, at) = next((vm, agent) for agent in stage.bus.agents.values() for vm in agent.vms.values())
    to = stage.bus.agents["b" if at.name == "c" else "c"]
    to.vms[vm.uuid] = at.vms.pop(vm.uuid)
    await stage.refresh()
    preview = await browser.get(f"{PATH}/undo")
    assert "VMs to be migrated back 2" in preview.text
    assert f"{vm.name} has since been migrated from {at.name} to {to.name}" in preview.text


async def test_a_viewer_reads_and_no_more(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    viewer = Browser(served(stage.controller))
    await viewer.sign_in(UserRole.VIEWER)
    page = await viewer.get(PATH)
    assert set(page.forms()) == {"/sign-out"} and f"{PATH}/undo" not in page.links()
    await viewer.get(f"{PATH}/undo", 403)
    for order in ("pause", "stop", "undo"):
        await viewer.post(f"{PATH}/{order}", page.forms()["/sign-out"], 403)
    assert (await stage.operation()).status is OperationStatus.RUNNING


def test_what_would_change_nothing_is_not_offered() -> None:
    assert offered(OperationStatus.RUNNING) == {"pause", "stop", "undo"}
    assert offered(OperationStatus.UNDONE) == set()


async def test_when_it_ends_and_what_moved_that_away(stage: Stage, browser: Browser) -> None:
    await stage.begin("a", finish_within_s=3600.0)
    await stage.tick()
    promise = promise_of(await stage.operation())
    assert promise is not None and promise.promised_at >= promise.expected_at > promise.seen_at
    page = await browser.get(PATH)
    assert f"Probably ends by {promise.promised_at[:19].replace('T', ' ')} UTC" in page.text
    assert f"by {promise.deadline_at[:19].replace('T', ' ')} UTC" in page.text
    assert "Migrations that failed, and why" not in page.text
    (failed, *_) = stage.open()
    stage.fail(failed, HOSTILE)
    await stage.tick()
    page = await browser.get(PATH)
    where = page.tree.xpath("//h2[.='Migrations that failed, and why']/following::table[1]//td")
    assert [one.text_content() for one in where][:3] == [failed.vm_name, failed.destination, "failed"]
    assert "<script>alert" not in page.answer.text


async def test_a_host_is_said_to_be_done(stage: Stage, browser: Browser) -> None:
    by_hand = Between(by_hand=True)
    await stage.begin("b", kind=OperationKind.ROLLING, between=by_hand)
    for _ in range(3):
        await stage.tick()
    page = await browser.get(PATH)
    assert "Rolling operation: b" in page.text and "nobody has reported yet that b is done" in page.text
    viewer = Browser(served(stage.controller))
    await viewer.sign_in(UserRole.VIEWER)
    assert f"{PATH}/hosts/b/done" not in (await viewer.get(PATH)).forms()
    said = await browser.follow(await browser.send(page, f"{PATH}/hosts/b/done"))
    assert "reported by token:operator" in said.text and f"{PATH}/hosts/b/done" not in said.forms()
    fields = page.forms()[f"{PATH}/hosts/b/done"]
    await browser.post(f"{PATH}/hosts/c/done", fields, 404)


def test_many_hosts_are_named_in_few_words() -> None:
    text = "{% from 'macros.html' import some %}{{ some(names) }}"
    names = [f"h{n}" for n in range(9)]
    assert TEMPLATES.from_string(text).render(names=names) == "h0, h1, h2, h3, h4, h5 and 3 more"
    assert TEMPLATES.from_string(text).render(names=[]) == ""


async def test_what_others_have_begun_is_not_brought_back(stage: Stage, browser: Browser) -> None:
    await stage.begin("a")
    await stage.tick()
    first, second = stage.open()
    stage.complete(first)
    await stage.tick()
    assert second.id in {one.id for one in stage.open()}
    preview = await browser.get(f"{PATH}/undo")
    moved = [one.text_content() for one in preview.tree.xpath("//td[@data-label='For']")]
    assert moved == ["bring back"] and "VMs to be migrated back 1" in preview.text
