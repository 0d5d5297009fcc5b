"""`virsh edit` on the source while the VM is copied: libvirt allows it, and the destination never hears of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sterna.domain.entries.notes import CopyStarted
from sterna.domain.errors import Unreachable
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.narrowing import not_none

from .fleet import SimFleet
from .playing import begin, raising, when


@pytest.mark.parametrize("moment", ["copying", "after the switch-over"])
async def test_a_definition_that_was_edited_meanwhile_is_kept_as_text(moment: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        domain = fleet.world.hosts["host1"].domains[vm]

        def edit() -> None:
            domain.inactive = replace(not_none(domain.inactive), vcpus=7)

        if moment == "copying":
            await begin(fleet, vm)
            while domain.job is None:
                await fleet.clock.sleep(0.1)
            edit()
        else:
            when(fleet.agents["host1"], "remove-vm-at-source", edit)
            await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        history = fleet.agents["host1"].history(fleet.migration)
        assert "vcpus=7" in history.notes["definition-edited"]["text"]
        assert "definition was changed on host1" in status_reason(fleet)
        assert "--diff --json" in status_reason(fleet)


@pytest.mark.parametrize("persistent", [True, False])
async def test_nothing_is_said_where_it_is_as_it_was(persistent: bool) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm(persistent=persistent)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert "definition" not in status_reason(fleet)
        assert "definition-edited" not in fleet.agents["host1"].history(fleet.migration).notes


async def test_what_differs_on_the_destination_is_recorded() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED
        recorded = not_none(fleet.agents["host1"].history(fleet.migration).get(CopyStarted).changes)
        assert recorded.persistent is not None and recorded.left_out == 0
        (tap,) = [one for one in recorded.live if one.where.endswith("/target/@dev")]
        assert tap.after and tap.after != tap.before


async def test_a_hypervisor_that_does_not_say_what_differs_holds_nothing_up() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with raising(SimHypervisor, "definition_changes", Unreachable("libvirtd does not answer")) as left:
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
        assert left == []
        assert fleet.agents["host1"].history(fleet.migration).get(CopyStarted).changes is None


def status_reason(fleet: SimFleet) -> str:
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    return next(str(e.data["reason"]) for e in entries if e.data.get("status") == Status.COMPLETED)
