"""The page of the fleet, and that of a host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.controller.records.registry import Host
from sterna.domain.access import UserRole
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.model import GuestState
from tests.unit.api.clients import served
from tests.unit.api.web.browser import HOSTILE, Browser
from tests.unit.controller.conftest import World
from tests.unit.controller.operating import OPERATION, Stage
from tests.unit.controller.requests import ID, request


async def test_every_host_is_there_with_its_state_and_its_memory(viewer: Browser, world: World) -> None:
    await world.fleet.put_rule(Rule(name="rack1", kind=RuleKind.FAILURE_DOMAIN, hosts=("a", "b")), replace=False)
    await world.controller.registry.set_maintenance("b", True, "new fans")
    page = await viewer.get("/")
    assert {"/hosts/a", "/hosts/b", "/hosts/c"} <= page.links()
    groups = [" ".join(one.text_content().split()) for one in page.tree.iter("h3")]
    assert groups == ["rack1 (2)", "Without a failure domain (1)"]
    cells = {one.get("href"): one for one in page.tree.iter("a") if one.find("b") is not None}
    assert "8.0 GiB of 16.0 GiB free" in cells["/hosts/a"].text_content()
    assert [one.get("value") for one in cells["/hosts/a"].iter("meter")] == ["50"]
    assert "closed" in cells["/hosts/b"].text_content() and cells["/hosts/b"].get("title") == "new fans"
    assert "3, 3 up , 1 closed" in page.text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "abc"),
        ("name=b", "b"),
        ("state=up", "ab"),
        ("state=up&state=down", "abc"),
        ("state=down", "c"),
        ("domain=rack1", "a"),
        ("closed=true", "b"),
        ("name=zzz", ""),
    ],
)
async def test_filters(viewer: Browser, world: World, query: str, shown: str) -> None:
    await world.fleet.put_rule(Rule(name="rack1", kind=RuleKind.FAILURE_DOMAIN, hosts=("a",)), replace=False)
    await world.controller.registry.set_maintenance("b", True)
    world.clock.ms += 10_000
    await world.bus.beat(world.controller, "a", "b")
    page = await viewer.get(f"/?{query}")
    assert {link for link in page.links() if link.startswith("/hosts/")} == {f"/hosts/{one}" for one in shown}
    assert f"{len(shown)} of 3 hosts" in page.text


async def test_a_thousand_hosts_are_one_page(
    viewer: Browser, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await world.controller.registry.host("a")
    many = [one.model_copy(update={"facts": one.facts.model_copy(update={"name": f"h{n}"})}) for n in range(1000)]

    async def hosts() -> list[Host]:
        return many

    monkeypatch.setattr(world.controller.registry, "hosts", hosts)
    page = await viewer.get("/")
    assert len([link for link in page.links() if link.startswith("/hosts/")]) == 1000
    assert len(page.answer.content) < 250_000 and "1000 of 1000 hosts" in page.text


async def test_why_a_host_cannot_be_used_is_on_its_page(viewer: Browser, world: World) -> None:
    world.clock.ms += 10_000
    page = await viewer.get("/hosts/a")
    assert "nothing received from its agent" in page.text and "start the Sterna agent on a" in page.text
    await viewer.get("/hosts/z", 404)


async def test_what_one_may_not_do_is_not_offered(viewer: Browser, operator: Browser) -> None:
    assert set((await viewer.get("/hosts/a")).forms()) == {"/sign-out"}
    assert set((await operator.get("/hosts/a")).forms()) == {
        "/sign-out",
        "/hosts/a/close",
        "/drains/preview",
        "/rearrangements/preview",
    }
    fields = (await viewer.get("/hosts/a")).forms()["/sign-out"] | {"hosts": "a"}
    for path in ("/hosts/a/close", "/hosts/a/open", "/drains/preview", "/drains", "/rearrangements/preview"):
        assert "needs the role operator" in (await viewer.post(path, fields, 403)).text


async def test_a_host_is_closed_and_opened(operator: Browser, world: World) -> None:
    page = await operator.get("/hosts/b")
    closed = await operator.follow(await operator.send(page, "/hosts/b/close", reason="new fans"))
    assert "it accepts no VMs (new fans)" in closed.text
    opened = await operator.follow(await operator.send(closed, "/hosts/b/open"))
    assert "/hosts/b/close" in opened.forms() and not (await world.fleet.host("b")).maintenance


async def test_its_vms_say_whether_they_can_move(viewer: Browser, world: World) -> None:
    world.a.add_vm("off", 2, GuestState.SHUTOFF)
    page = await viewer.get("/hosts/a")
    assert "web1 running 1.0 GiB 1 yes" in page.text
    assert "off shutoff 1.0 GiB 1 no: it is off" in page.text


async def test_what_moves_to_a_host_is_on_its_page(viewer: Browser, world: World) -> None:
    await world.controller.migrate(request())
    for name in "ab":
        assert f"/migrations/{ID}" in (await viewer.get(f"/hosts/{name}")).links()
    assert f"/migrations/{ID}" not in (await viewer.get("/hosts/c")).links()


async def test_hostile_text_is_text(operator: Browser, world: World) -> None:
    world.a.add_vm(HOSTILE, 2)
    await world.controller.registry.set_maintenance("a", True, HOSTILE)
    world.c.lost = HOSTILE
    await world.bus.beat(world.controller)
    for path in ("/", "/hosts/a", "/hosts/c", "/?name=" + HOSTILE[:40]):
        page = await operator.get(path)
        assert "<script>alert" not in page.answer.text and "<img" not in page.answer.text
        assert "\u202e" not in page.answer.text
    assert HOSTILE[:-1] in (await operator.get("/hosts/a")).text


@pytest.fixture
async def drainer(stage: Stage) -> AsyncIterator[Browser]:
    browser = Browser(served(stage.controller))
    await browser.sign_in(UserRole.OPERATOR)
    yield browser
    await browser.http.aclose()


async def test_a_drain_is_shown_before_it_begins(stage: Stage, drainer: Browser) -> None:
    stage.set_state("x3", GuestState.PAUSED)
    form = await drainer.get("/hosts/a")
    preview = await drainer.send(
        form, "/drains/preview", 200, reason="new fans", finish_within_min="60", may=["postcopy"]
    )
    assert "x3 cannot be migrated: it is paused" in preview.text and "VMs to be migrated 2" in preview.text
    assert "a drained 3 to 1 3.0 GiB" in preview.text and "No plan ends sooner than" in preview.text
    assert not (await stage.controller.fleet.host("a")).maintenance
    assert "some VMs would stay on its hosts" in (await drainer.send(preview, "/drains", 422)).text
    fields = preview.forms()["/drains"] | {"id": [OPERATION], "even_if_late": ["yes"]}
    begun = await drainer.post("/drains", fields)
    assert begun.answer.headers["location"] == f"/operations/{OPERATION}"
    operation = await stage.operation()
    assert (operation.reason, operation.finish_within_s, operation.hosts) == ("new fans", 3600, ("a",))
    assert operation.requested_by == "token:operator" and {one.value for one in operation.may or ()} == {"postcopy"}
    await drainer.post("/drains", fields)  # sent twice, it is one operation
    assert "drain bbbbbbbb" in (await drainer.get("/")).text
    assert f"/operations/{OPERATION}" in (await drainer.get("/hosts/a")).links()


async def test_what_makes_no_sense_is_refused_with_a_reason(stage: Stage, drainer: Browser) -> None:
    form = await drainer.get("/hosts/a")
    wrongs = (("finish_within_min", "soon"), ("finish_within_min", "-1"), ("may", "explode"), ("hosts", ""))
    for name, value in wrongs:
        fields = form.forms()["/drains/preview"] | {name: [value]}
        assert name.removesuffix("_min") in (await drainer.post("/drains/preview", fields, 422)).text
    await drainer.send(form, "/drains/preview", 404, hosts="z")
    late = await drainer.send(form, "/drains/preview", 200, finish_within_min="0.05")
    assert "Too late by" in late.text
    assert "deadline-missed" in (await drainer.send(late, "/drains", 422)).text
    await drainer.send(late, "/drains", even_if_late="yes")


async def test_what_has_moved_from_and_to_a_host(stage: Stage, drainer: Browser) -> None:
    assert "None among the last 200" in (await drainer.get("/hosts/a")).text
    await stage.begin("a")
    await stage.run()
    moved = {f"/migrations/{one.attempt.migration}" for one in await stage.controller.fleet.attempts(OPERATION)}
    page = await drainer.get("/hosts/a")
    assert len(moved) == 3 and moved <= page.links() and page.text.count("completed") == 3
    assert "Migration link unknown: set link_bytes_s in its settings Versions Sterna 1.0, libvirt" in page.text
