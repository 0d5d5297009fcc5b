"""A drain of a host whose VMs another host claims: both have them, as far as anybody knows."""

from __future__ import annotations

import pytest

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.sightings import Mark, News
from sterna.ports.fleet import VmPage, VmRecord
from tests.unit.controller.operating import Stage, X

S = OperationStatus


@pytest.mark.parametrize("claimed", ["x1", "x2", "x3"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_host_is_not_empty_because_another_one_claims_its_vms(
    stage: Stage, claimed: str, late: bool
) -> None:
    """It says that it runs them, and may be one that was taken over: an operator would switch the other one off."""
    a, b = stage.bus.agents["a"], stage.bus.agents["b"]
    (vm,) = (vm for vm in a.vms.values() if vm.name == claimed)

    def claim() -> None:
        if vm.uuid in a.vms:
            b.vms[vm.uuid] = vm

    if not late:
        await stage.refresh()
        claim()
    await stage.begin()
    if late:
        claim()

    def goes_on() -> None:
        for migration in stage.open():
            if migration.vm_name != claimed:
                stage.complete(migration)
            else:
                stage.fail(migration)

    ended = await stage.run(goes_on)
    assert ended.status is S.INCOMPLETE and vm.uuid in a.vms
    assert [(left.name, left.host) for left in ended.standing.left] == [(claimed, "a")]
    assert "as well" in ended.standing.left[0].reason


async def claim_now(stage: Stage) -> None:
    """b says that it runs x1, after a has said so, which has not been asked again since."""
    a = stage.bus.agents["a"]
    assert await stage.controller.snapshot.ask_now(("a", "b", "c")) == {}
    (vm,) = (vm for vm in a.vms.values() if vm.name == "x1")
    mark = Mark(boot=stage.bus.agents["b"].boot, seq=7, digest="")
    news = News(whole=True, seen=(vm,), mark=mark)
    await stage.controller.fleet.take_news([("b", news)], (), "2026-01-01T00:00:00+00:00")
    (record,) = (one for one in await stage.controller.fleet.vms() if one.name == "x1")
    assert (record.host, record.also) == ("b", ())


async def test_nor_where_it_has_just_begun_to_claim_them(stage: Stage) -> None:
    """It may do so again and again: at each look nobody else seems to have the VM."""
    for agent in stage.bus.agents.values():
        agent.counts = True
    a = stage.bus.agents["a"]
    for name in ("x2", "x3"):
        del a.vms[X[name]]
    await stage.begin()
    await claim_now(stage)
    await stage.controller.operations.look()
    operation = await stage.operation()
    assert operation.status is S.RUNNING
    assert operation.standing.waits_for == "a says that it runs x1, and so does b: it is planned again"


async def test_nor_at_the_last_moment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for agent in stage.bus.agents.values():
        agent.counts = True
    a, fleet = stage.bus.agents["a"], stage.controller.fleet
    for name in ("x2", "x3"):
        del a.vms[X[name]]
    await stage.begin()
    await claim_now(stage)
    read = fleet.page_of_vms

    async def before(page: VmPage) -> list[VmRecord]:
        return [] if page.host == "a" else await read(page)

    monkeypatch.setattr(fleet, "page_of_vms", before)
    await stage.controller.operations.look()
    assert (await stage.operation()).status is S.RUNNING
    assert "other VMs than before" in (await stage.operation()).standing.waits_for
