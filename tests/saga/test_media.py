"""Media that nobody writes to: shared ones in folders that cannot be written, the same content on both hosts, and
seed drives that the agents send. Nothing of them is lost, whoever dies."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Refused
from sterna.domain.model import DiskKind
from sterna.domain.status import Status
from sterna.sim.world.things import SimFile, SimFolder
from tests.asking import to_check
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.media import seed_of, with_medium

ISO = "/isos/debian.iso"


def isos(fleet: SimFleet, *, shared: bool, read_only: bool) -> None:
    folder = SimFolder("/isos", shared=shared, hosts={"host1", "host2"}, read_only=read_only)
    for host in ("host1", "host2"):
        own = folder if shared else SimFolder("/isos", hosts={host}, read_only=read_only)
        fleet.world.hosts[host].folders.append(own)


@pytest.mark.parametrize(
    ("dies", "host"),
    [
        ("", ""),
        ("send-media", "host1"),
        ("create-instance-directory", "host2"),
        ("copy", "host1"),
        ("update-vm", "host2"),
        ("remove-vm-at-source", "host1"),
    ],
)
async def test_a_seed_drive_that_is_only_on_the_source_is_sent(dies: str, host: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        path = seed_of(fleet)
        fleet.world.put_file("host1", path, SimFile(600_000, content="seed " * 120_000))
        vm = with_medium(fleet, path)
        if dies:
            fleet.agents[host].rules = [(dies, "after", "kill")]
        await fleet.start(vm)
        status = await fleet.ended()
        assert status is Status.COMPLETED, fleet.agents["host1"].history(fleet.migration).turned_back
        assert fleet.world.violations == []
        (there, here) = (fleet.world.hosts[h].file(path) for h in ("host2", "host1"))
        assert there is not None
        assert there.content == "seed " * 120_000
        assert here is None


async def test_a_rollback_removes_what_was_sent_and_leaves_what_was_there() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        path = seed_of(fleet)
        fleet.world.put_file("host1", path, SimFile(4, content="seed"))
        vm = with_medium(fleet, path)
        fleet.agents["host1"].rules = [("make-way", "before", "permanent")]
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.hosts["host2"].file(path) is None
        assert fleet.world.hosts["host1"].file(path) is not None


@pytest.mark.parametrize("read_only", [False, True])
async def test_the_same_iso_on_disks_of_both_hosts_is_used_where_it_is(read_only: bool) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=False, read_only=read_only)
        for host in ("host1", "host2"):
            fleet.world.put_file(host, ISO, SimFile(1 << 30, content="debian"))
        await fleet.start(with_medium(fleet, ISO))
        assert await fleet.ended() is Status.COMPLETED
        assert all(fleet.world.hosts[host].file(ISO) for host in ("host1", "host2"))


@pytest.mark.parametrize("size", [1 << 30, 2 << 30])
async def test_another_iso_of_that_name_is_refused(size: int) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=False, read_only=False)
        fleet.world.put_file("host1", ISO, SimFile(1 << 30, content="debian"))
        fleet.world.put_file("host2", ISO, SimFile(size, content="windows"))
        with pytest.raises(Refused) as refused:
            await fleet.start(with_medium(fleet, ISO))
        assert [r.code for r in refused.value.refusals] == ["medium-differs"]


async def test_an_iso_in_a_shared_library_that_is_mounted_read_only() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=True, read_only=True)
        fleet.world.put_file("host1", ISO, SimFile(8 << 30, content="debian"))
        await fleet.start(with_medium(fleet, ISO))
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host1"].file(ISO) is not None


async def test_an_iso_that_the_destination_lacks_outside_the_instances_directory_is_refused() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=False, read_only=True)
        fleet.world.put_file("host1", ISO, SimFile(1 << 20, content="debian"))
        with pytest.raises(Refused) as refused:
            await fleet.start(with_medium(fleet, ISO))
        assert {r.code for r in refused.value.refusals} == {"medium-missing"}
        assert all(r.fix for r in refused.value.refusals)


@pytest.mark.parametrize(("dies", "host"), [("", ""), ("snapshot-volumes", "host1"), ("copy", "host1")])
async def test_an_optional_medium_of_a_folder_of_the_host_stays_behind_and_the_plan_says_so(
    dies: str, host: str
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=False, read_only=False)
        fleet.world.put_file("host1", ISO, SimFile(1 << 30, content="debian"))
        vm = with_medium(fleet, ISO, optional=True)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        (said,) = answer["vm"]["unjudged"]
        assert answer["refusals"] == [] and ISO in said and "drive is empty" in said
        if dies:
            fleet.agents[host].rules = [(dies, "after", "kill")]
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED, fleet.agents["host1"].history(fleet.migration).turned_back
        assert fleet.world.violations == []
        there = fleet.world.hosts["host2"].domains[vm]
        live, inactive = (not_none(each).disks[-1] for each in (there.live, there.inactive))
        assert (live.kind, live.path) == (DiskKind.EMPTY, None)
        assert (inactive.kind, inactive.path) == (DiskKind.FILE, ISO)
        assert fleet.world.hosts["host1"].file(ISO) is not None
        assert fleet.world.hosts["host2"].file(ISO) is None
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED


async def test_after_a_rollback_an_optional_medium_is_in_its_drive() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        isos(fleet, shared=False, read_only=False)
        fleet.world.put_file("host1", ISO, SimFile(1 << 30, content="debian"))
        vm = with_medium(fleet, ISO, optional=True)
        fleet.agents["host1"].rules = [("make-way", "before", "permanent")]
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents["host1"].history(fleet.migration).turned_back is not None
        assert not_none(fleet.world.hosts["host1"].domains[vm].live).disks[-1].path == ISO
