"""Somebody takes the VM away while its migration is open: deletes it, or moves it himself, past Sterna."""

from __future__ import annotations

import pytest

from sterna.domain.copying import CopyPlan, DestinationDisk
from sterna.domain.model import DiskKind
from sterna.domain.status import Status
from sterna.sim.libvirt import qemu
from sterna.sim.libvirt.copying import SimCopy
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet
from tests.saga.playing import one, run, when


def delete(fleet: SimFleet, host: str = "host1") -> None:
    """`virsh undefine --nvram`, then `virsh destroy`, of the only VM: nothing of it is left in libvirt."""
    there = fleet.world.hosts[host]
    domain = there.domains[one(fleet)]
    domain.inactive, domain.autostart = None, False
    qemu.end(fleet.world, there, domain, reason="destroyed", event="stopped", detail="destroyed")


def move(fleet: SimFleet, to: str) -> SimCopy:
    """`virsh migrate --live` of the only VM, which has a shared disk and no NIC."""
    source = fleet.world.hosts["host1"]
    domain = source.domains[one(fleet)]
    assert domain.live is not None
    disk = domain.live.disks[0]
    plan = CopyPlan(
        migration_id="virsh",
        epoch=domain.definition.epoch or 0,
        destination_uri="",
        migrate_uri=None,
        disks=(DestinationDisk(target=disk.target, kind=DiskKind.FILE, path=disk.path),),
        nics=(),
        persistent=True,
    )
    copy = SimCopy(fleet.world, source, fleet.world.hosts[to], domain, plan)
    copy.start()
    return copy


@pytest.mark.parametrize("step", ["connect-volumes", "plug-vifs"])
async def test_a_vm_that_is_deleted_while_it_is_prepared_ends_the_migration(step: str) -> None:
    fleet = SimFleet()
    empty = {name: fleet.own(name) for name in fleet.agents}

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm(autostart=True))
        assert await fleet.ended(limit_s=120) is Status.FAILED
        assert fleet.own("host2") == empty["host2"]
        told = fleet.agents["host1"].history(fleet.migration).notes["changed-meanwhile"]["what"]
        assert told == ["its definition was removed"]

    when(fleet.agents["host2"], step, lambda: delete(fleet))
    await run(scenario, fleet)


async def test_a_vm_that_is_deleted_while_it_is_copied_ends_the_migration() -> None:
    fleet = SimFleet()
    empty = {name: fleet.own(name) for name in fleet.agents}

    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        await fleet.start(vm)
        assert await fleet.ended(limit_s=120) is Status.FAILED
        assert fleet.own("host2") == empty["host2"]
        assert fleet.world.running(vm) == []

    when(fleet.agents["host1"], "copy", lambda: fleet.later(0.5, lambda: delete(fleet)))
    await run(scenario, fleet)


async def test_somebody_elses_migration_of_the_vm_is_not_given_up_by_a_rollback() -> None:
    fleet = SimFleet(("host1", "host2", "host3"))
    copies: list[SimCopy] = []

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), nics=0)
        empty = fleet.own("host2")
        await fleet.start(vm)
        assert await fleet.ended(limit_s=120) is Status.FAILED
        assert copies[0].error is None
        assert fleet.world.running(vm) == ["host3"]
        assert fleet.own("host2") == empty

    when(fleet.agents["host2"], "connect-volumes", lambda: copies.append(move(fleet, "host3")))
    await run(scenario, fleet)


async def test_a_guest_that_was_moved_while_the_agent_was_down_is_not_taken_for_arrived() -> None:
    fleet = SimFleet(("host1", "host2", "host3"))
    copies: list[SimCopy] = []

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), nics=0, autostart=True)
        empty = fleet.own("host2")
        fleet.agents["host1"].rules.append(("copy", "before", "kill"))
        fleet.down_s = 60
        await fleet.start(vm)
        assert await fleet.ended(limit_s=240) is Status.FAILED
        assert copies[0].error is None
        assert fleet.world.running(vm) == ["host3"]
        assert fleet.own("host2") == empty
        assert not fleet.world.hosts["host1"].domains[vm].autostart  # a reboot would start a second copy

    when(
        fleet.agents["host1"],
        "copy",
        lambda: fleet.later(5, lambda: copies.append(move(fleet, "host3"))),
    )
    await run(scenario, fleet)


@pytest.mark.parametrize("step", ["take-ownership", "interlock"])
async def test_a_guest_that_somebody_else_moved_to_the_very_destination_is_left_to_him(step: str) -> None:
    fleet = SimFleet()
    copies: list[SimCopy] = []

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), nics=0)
        await fleet.start(vm)
        await fleet.clock.sleep(300)
        source = fleet.agents["host1"]
        assert source.history(fleet.migration).status == Status.ERROR
        assert len(source.journal.entries(fleet.migration)) < 60  # not there and back every second
        assert copies[0].error is None and fleet.world.running(vm) == ["host2"]
        delete(fleet, "host2")
        assert await fleet.ended(limit_s=120) is Status.FAILED

    when(fleet.agents["host1"], step, lambda: copies.append(move(fleet, "host2")))
    await run(scenario, fleet)


@pytest.mark.parametrize(("step", "fails", "ending"), [
    ("connect-volumes", True, Status.FAILED), ("activate-bindings", False, Status.COMPLETED),
])  # fmt: skip
async def test_a_port_that_is_deleted_meanwhile_holds_neither_end_up(
    step: str, fails: bool, ending: Status
) -> None:
    fleet = SimFleet()

    async def scenario(fleet: SimFleet) -> None:
        if fails:
            fleet.agents["host2"].rules.append(("connect-volumes", "after", "permanent"))
        await fleet.start(fleet.vm())
        assert await fleet.ended(limit_s=120) is ending

    when(fleet.agents["host2"], step, fleet.world.bindings.clear)
    await run(scenario, fleet)
