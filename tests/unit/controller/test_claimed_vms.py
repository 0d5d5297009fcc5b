"""A drain of a host whose VMs another host claims: both have them, as far as anybody knows."""

from __future__ import annotations

import pytest

from sterna.domain.fleet.course import OperationStatus
from tests.unit.controller.operating import Stage

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
