"""NVRAM: libvirt makes it on the destination and keeps it without a definition; what stays is said."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import SimFile
from tests.asking import to_check

from .fleet import SimFleet
from .named_files import NVRAM, nvram_at, other, reasons
from .playing import begin, when

ELSEWHERE = "/srv/nvram/tern_VARS.fd"


async def test_a_rollback_removes_the_nvram_that_libvirt_made_for_the_guest() -> None:
    """libvirt forgets the incoming domain by itself: nothing is left to undefine."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm)
        host1, host2 = (fleet.world.hosts[name] for name in ("host1", "host2"))
        await begin(fleet, vm)
        while host2.file(NVRAM) is None:
            await fleet.clock.sleep(0.1)
        await fleet.abort()
        assert await fleet.ended() is Status.CANCELLED
        assert host2.file(NVRAM) is None and host1.file(NVRAM) is not None
        assert outcome(fleet, "host2", "remove-instance-directory")["removed"] == [NVRAM]


@pytest.mark.parametrize("used, why", [(False, "libvirt's own folder"), (True, "used by VM other")])
async def test_nvram_that_may_be_anothers_is_kept_and_reported(used: bool, why: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        path = NVRAM if used else ELSEWHERE
        nvram_at(fleet, vm, path)
        if used:
            there = fleet.agents["host2"]
            when(there, "remove-instance-directory", lambda: other(fleet, "host2", NVRAM))
        await begin(fleet, vm)
        while fleet.world.hosts["host2"].file(path) is None:
            await fleet.clock.sleep(0.1)
        await fleet.abort()
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.world.hosts["host2"].file(path) is not None
        kept = outcome(fleet, "host2", "remove-instance-directory")["kept"]
        assert list(kept) == [path] and why in kept[path]


async def test_the_nvram_of_a_transient_guest_leaves_the_source() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), persistent=False)
        nvram_at(fleet, vm)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host1"].file(NVRAM) is None
        assert outcome(fleet, "host1", "remove-vm-at-source")["state"] == ["nvram"]


@pytest.mark.parametrize("persistent", [True, False])
async def test_nvram_that_an_operator_has_put_elsewhere_is_not_said_to_be_removed(persistent: bool) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), persistent=persistent)
        nvram_at(fleet, vm, ELSEWHERE)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host1"].file(ELSEWHERE) is not None
        removed = outcome(fleet, "host1", "remove-vm-at-source")
        assert removed["state"] == [] and "libvirt's own folder" in removed["kept"][ELSEWHERE]


async def test_nvram_on_the_destination_that_nobody_names_is_not_written_over() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm, ELSEWHERE)
        fleet.world.make_directory("host2", "/srv/nvram")
        fleet.world.put_file("host2", ELSEWHERE, SimFile(1 << 17, content="another guest's"))
        assert await reasons(fleet, vm) == ["state-file-exists"]


async def test_nvram_is_not_written_over_if_it_appears_after_the_plan() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm, ELSEWHERE)

        def appear() -> None:
            fleet.world.make_directory("host2", "/srv/nvram")
            fleet.world.put_file("host2", ELSEWHERE, SimFile(1 << 17, content="another guest's"))

        when(fleet.agents["host1"], "snapshot-volumes", appear)
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        found = fleet.world.hosts["host2"].file(ELSEWHERE)
        assert found is not None and found.content == "another guest's"


@pytest.mark.parametrize("path", [NVRAM, ELSEWHERE])
async def test_nvram_that_the_vm_left_behind_does_not_keep_it_from_returning(path: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm, path)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        fleet.world.put_file("host1", path, SimFile(1 << 17, content="left behind"))
        answer = await fleet.client.call("host2", "check_migration", to_check(vm, "host1"))
        assert answer["refusals"] == []


@pytest.mark.parametrize("path", [NVRAM, "/srv/shared/nvram/tern.fd"])
async def test_nvram_named_after_the_vm_or_shared_may_be_there(path: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm, path)
        if path == NVRAM:
            fleet.world.make_directory("host2", "/var/lib/libvirt/qemu/nvram")
            fleet.world.put_file("host2", path, SimFile(1 << 17, content="left behind"))
        assert await reasons(fleet, vm) == []


def outcome(fleet: SimFleet, host: str, step: str) -> dict[str, Any]:
    return dict(fleet.agents[host].history(fleet.migration).results[step])
