"""What libvirt left of a copy of disks in the new QEMU ends with the migration."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Permanent
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


async def test_an_nbd_server_that_libvirt_forgot_ends_with_the_migration() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()

        def leave_exports() -> None:
            fleet.world.hosts["host2"].domains[vm].exports = ("libvirt-nbd",)

        fleet.agents["host2"].rules = [("activate-bindings", "before", leave_exports)]
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host2"].domains[vm].exports == ()

    await run(scenario)


async def test_a_qemu_that_refuses_to_be_asked_for_them_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_self: SimHypervisor, _uuid: str) -> tuple[str, ...]:
        raise Permanent("QEMU refused query-block-exports: the command has not been found")

    monkeypatch.setattr(SimHypervisor, "end_exports", refused)

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)
