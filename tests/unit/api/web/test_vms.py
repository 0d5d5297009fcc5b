"""The pages of VMs: a plan and a migration begin here."""

from __future__ import annotations

from sterna.domain.model import GuestState, Refusal
from sterna.domain.objective import Objective
from sterna.ports.fleet import Page as MigrationPage
from tests.unit.api.web.browser import HOSTILE, Browser
from tests.unit.controller.conftest import World
from tests.unit.controller.requests import ID

PLAN, MIGRATE = "/vms/{}/plan", "/vms/{}/migrate"
WISHES = {
    "destination": "b",
    "policy": "gentle",
    "max_downtime_ms": "200",
    "finish_within_min": "1.5",
    "bandwidth_mib_s": "5",
    "may": ["pause", "throttle"],
}


async def test_vms_are_listed_with_filters_and_pages(viewer: Browser, world: World) -> None:
    for n in range(2, 140):
        world.a.add_vm(f"vm{n:03}", n)
    world.b.add_vm("off", 200, GuestState.SHUTOFF)
    first = await viewer.get("/vms?name=vm")
    assert len([link for link in first.links() if link.startswith("/vms/")]) == 100
    (more,) = (link for link in first.links() if "cursor=" in link)
    second = await viewer.get(f"/vms{more}")
    assert len([link for link in second.links() if link.startswith("/vms/")]) == 38
    off = await viewer.get("/vms?state=shutoff")
    assert "off b shutoff" in off.text and "web1" not in off.text
    assert "No VM matches" in (await viewer.get("/vms?name=zzz")).text


async def test_a_vm_says_where_it_is(viewer: Browser, world: World) -> None:
    page = await viewer.get(f"/vms/{world.web1}")
    assert "Host a State running" in page.text and "There are none." in page.text
    assert set(page.forms()) == {"/sign-out"}
    await viewer.get("/vms/nope", 404)


async def test_a_plan_on_one_click(operator: Browser, world: World) -> None:
    page = await operator.get("/vms/web1")
    plan = await operator.send(page, PLAN.format(world.web1), 200, **WISHES)
    assert "Plan: a to b" in plan.text and "No blockers." in plan.text
    assert "10.0 MiB/s dirtied" in plan.text and "5.0 MiB/s (asked)" in plan.text
    assert "plain pre-copy" in plan.text and "throttling the guest" in plan.text
    kept = plan.forms()[PLAN.format(world.web1)]
    assert {name: kept[name] for name in WISHES} == {
        name: value if isinstance(value, list) else [value] for name, value in WISHES.items() if name != "may"
    } | {"may": ["throttle", "pause"]}
    assert await world.fleet.migrations(MigrationPage()) == []


async def test_every_blocker_is_named_with_its_fix(operator: Browser, world: World) -> None:
    world.b.against = [Refusal(code="memory-short", message=f"b is full {HOSTILE}", fix="move another VM")]
    page = await operator.get("/vms/web1")
    plan = await operator.send(page, PLAN.format(world.web1), 200, destination="b")
    assert "memory-short" in plan.text and "Fix: move another VM" in plan.text and HOSTILE[:-1] in plan.text


async def test_a_migration_begins_once_with_what_the_form_says(operator: Browser, world: World) -> None:
    page = await operator.get("/vms/web1")
    fields = page.forms()[PLAN.format(world.web1)] | WISHES | {"id": ID}
    begun = await operator.post(MIGRATE.format(world.web1), fields)
    assert begun.answer.headers["location"] == f"/migrations/{ID}"
    await operator.post(MIGRATE.format(world.web1), fields)
    (record,) = await world.fleet.migrations(MigrationPage())
    assert (record.migration.requested_by, record.migration.destination) == ("token:operator", "b")
    wanted = Objective.model_validate(record.migration.options.objective)
    assert (wanted.policy, wanted.max_downtime_ms, wanted.finish_within_s) == ("gentle", 200, 90)
    assert (wanted.bandwidth_bytes_s, {one.value for one in wanted.may}) == (5 * 2**20, {"pause", "throttle"})
    again = await operator.post(MIGRATE.format(world.web1), fields | {"id": ""}, 409)
    assert ID in again.text
    assert "being migrated" in (await operator.get("/vms/web1")).text


async def test_what_makes_no_sense_is_refused_with_a_reason(operator: Browser, world: World) -> None:
    page = await operator.get("/vms/web1")
    for name, wrong in {"max_downtime_ms": "soon", "finish_within_min": "x", "bandwidth_mib_s": "0"}.items():
        refused = await operator.send(page, PLAN.format(world.web1), 422, **{name: wrong})
        assert name.split("_")[0] in refused.text
    refused = await operator.send(page, PLAN.format(world.web1), 422, policy="hasty")
    assert "policy-unknown" in refused.text
    world.b.against = [Refusal(code="memory-short", message="b is full", fix="move another VM")]
    fields = page.forms()[PLAN.format(world.web1)] | {"destination": "b"}
    assert "memory-short" in (await operator.post(MIGRATE.format(world.web1), fields, 422)).text


async def test_a_viewer_can_begin_nothing(viewer: Browser, world: World) -> None:
    fields = (await viewer.get("/")).forms()["/sign-out"] | {"destination": "b"}
    for path in (PLAN, MIGRATE):
        assert "needs the role operator" in (await viewer.post(path.format("web1"), fields, 403)).text
    assert world.bus.asked("measure_load") == world.bus.asked("start_migration") == 0


async def test_hosts_are_ranked_with_what_keeps_the_vm_away(
    viewer: Browser, operator: Browser, world: World
) -> None:
    await world.controller.registry.set_maintenance("b", True, HOSTILE)
    path = f"/vms/{world.web1}/destinations"
    assert path in (await viewer.get("/vms/web1")).links()
    page = await viewer.get(path)
    assert [one.text_content() for one in page.tree.xpath("//td[@data-label='Host']")] == ["c"]
    assert "the host is closed: " + HOSTILE[:20] in page.text and "<script>alert" not in page.answer.text
    assert not any("destination=" in link for link in page.links()), "a viewer plans nothing"
    chosen = f"/vms/{world.web1}?destination=c"
    assert chosen in (await operator.get(path)).links()
    form = (await operator.get(chosen)).forms()[PLAN.format(world.web1)]
    assert form["destination"] == ["c"]
    await viewer.get("/vms/nope/destinations", 404)


async def test_why_it_can_be_moved_nowhere(viewer: Browser, world: World) -> None:
    paused = world.a.add_vm("paused", 9, GuestState.PAUSED)
    await world.bus.beat(world.controller)
    assert "It cannot be migrated to any host now: " in (await viewer.get(f"/vms/{paused}/destinations")).text


async def test_a_plan_names_the_best_hosts(operator: Browser, world: World) -> None:
    page = await operator.get("/vms/web1")
    plan = await operator.send(page, PLAN.format(world.web1), 200)
    best = plan.tree.xpath("//dt[.='Best hosts, by capacity and rules']/following-sibling::dd[1]/a")
    assert [one.text for one in best] == ["b", "c", "All, with reasons"]
    assert "for a forecast, give a limit in the form below" in plan.text and "--bandwidth" not in plan.text
