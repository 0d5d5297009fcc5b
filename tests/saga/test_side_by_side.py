"""A VM's volumes are attached, opened and detached side by side: a slow service is waited for once."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Temporary
from sterna.domain.model import Disk
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.ports.volumes import SimIscsiVolumes
from tests.saga.fleet import SimFleet
from tests.saga.playing import SLOW_S, Slow, run

DISKS = 6


@pytest.mark.parametrize(
    ("row", "call", "host", "fails"),
    [
        ("P4", "attach", "host2", False),
        ("P9", "connect", "host2", False),
        ("F3", "detach", "host1", False),
        ("R3", "detach", "host2", True),
    ],
)
async def test_a_slow_volume_service_is_waited_for_once(row: str, call: str, host: str, fails: bool) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("iscsi",) * DISKS)
        if fails:
            fleet.agents["host1"].rules = [("make-way", "before", "permanent")]
        with Slow(fleet, SimIscsiVolumes, call, host=host) as slow:
            await fleet.start(vm)
            assert await fleet.ended() is (Status.FAILED if fails else Status.COMPLETED)
            assert len(slow.began_ms) == DISKS, row
            assert max(slow.began_ms) - min(slow.began_ms) < SLOW_S * 1000

    await run(scenario)


async def test_a_volume_that_cannot_be_detached_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real, refuses = SimIscsiVolumes.detach, True

    async def detach(volumes: SimIscsiVolumes, disk: Disk) -> None:
        if disk.target == "vda" and refuses:
            raise Temporary("not now")
        await real(volumes, disk)

    monkeypatch.setattr(SimIscsiVolumes, "detach", detach)

    async def scenario(fleet: SimFleet) -> None:
        nonlocal refuses
        vm = add_vm(fleet.world, "host1", "tern", disks=("iscsi",) * 2)
        await fleet.start(vm)
        await fleet.clock.sleep(120)
        mine = fleet.world.hosts["host1"].initiator
        admitted = [mine in target.admitted for target in fleet.world.iscsi.targets.values()]
        assert sorted(admitted) == [False, True]
        refuses = False
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)
