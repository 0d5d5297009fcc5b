"""F3: LUNs of a source whose libvirt does not answer are detached later, and the destination waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import patch

import pytest

from sterna.domain.errors import Unreachable
from sterna.domain.status import Status
from sterna.sim.libvirt.inventory import SimInventory
from tests.saga.fleet import SimFleet
from tests.saga.luns import admitted, names_the_lun
from tests.saga.playing import when

Silence = Callable[[SimFleet], Callable[[], None]]
"""Begins, and returns what ends it."""


def goes_away(fleet: SimFleet) -> Callable[[], None]:
    host = fleet.world.hosts["host1"]
    host.libvirtd_up = False

    def back() -> None:
        host.libvirtd_up = True

    return back


def hangs(fleet: SimFleet) -> Callable[[], None]:
    released = asyncio.Event()

    async def late(*_: object, **__: object) -> None:
        await released.wait()
        raise Unreachable("libvirtd does not answer: no answer within 90 s")

    patched = patch.object(SimInventory, "volume_claims", late)
    patched.start()

    def back() -> None:
        patched.stop()
        released.set()

    return back


async def destination_done(fleet: SimFleet) -> None:
    for _ in range(60):
        if fleet.agents["host2"].history(fleet.migration).closed:
            return
        await fleet.clock.sleep(1)
    pytest.fail("the destination waits for the source's libvirt")


@pytest.mark.parametrize("silence", [goes_away, hangs])
async def test_the_destination_finishes_and_the_lun_follows(silence: Silence) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, ends = fleet.vm(), list[Callable[[], None]]()
        when(fleet.agents["host1"], "detach-volumes", lambda: ends.append(silence(fleet)))
        try:
            await fleet.start(vm)
            await destination_done(fleet)
            assert admitted(fleet, vm) == {"host1", "host2"}
        finally:
            for end in ends:
                end()
        assert await fleet.ended() is Status.COMPLETED
        assert admitted(fleet, vm) == {"host2"} and not fleet.world.violations


async def test_a_vm_that_names_the_lun_meanwhile_keeps_it() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, ends = fleet.vm(), list[Callable[[], None]]()
        when(fleet.agents["host1"], "detach-volumes", lambda: ends.append(goes_away(fleet)))
        await fleet.start(vm)
        await destination_done(fleet)
        names_the_lun(fleet, "host1", vm)
        ends[0]()
        assert await fleet.ended() is Status.COMPLETED
        assert admitted(fleet, vm) == {"host1", "host2"}
        entries = fleet.agents["host1"].journal.entries(fleet.migration)
        (said,) = (e.data["reason"] for e in entries if e.data.get("status") == Status.COMPLETED)
        assert "VM rescue" in said
