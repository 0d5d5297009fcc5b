"""Files that other VMs and other hosts have, which a migration neither writes over nor removes; and their room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sterna.domain.model import StateFile
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import SimFile
from tests.asking import to_check
from tests.narrowing import not_none

from .fleet import SimFleet
from .named_files import NVRAM, kept, local_disk, nvram_at, other, reasons
from .playing import when


async def test_another_vms_firmware_state_is_not_overwritten_also_where_that_vm_is_off() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        nvram_at(fleet, vm)
        assert await reasons(fleet, vm) == []
        other(fleet, "host2", NVRAM)
        assert await reasons(fleet, vm) == ["path-taken"]
        del fleet.world.hosts["host2"].domains["other"]
        there = fleet.agents["host2"]
        there.rules.append(("driver-pre-live-migration", "before", lambda: other(fleet, "host2", NVRAM)))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == ["host1"] and not fleet.world.violations


@pytest.mark.parametrize(
    "where, words",
    [({"mount": "nfs4 nas:/instances"}, "nfs4 nas:/instances"), ({"exported": True}, "which this host exports")],
)
async def test_what_a_third_host_may_have_is_kept_and_said_beforehand(where: dict[str, Any], words: str) -> None:
    """As the base of clones: only the destination is asked."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, host1 = local_disk(fleet, vm), fleet.world.hosts["host1"]
        nvram_at(fleet, vm)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        assert answer["vm"]["unjudged"] == []
        for name in (path, NVRAM):
            vars(host1.folder(name)).update(where)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        (said,) = answer["vm"]["unjudged"]
        assert path in said and words in said
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert words in kept(fleet)[path]
        assert host1.file(path) is not None and host1.file(NVRAM) is not None


async def test_a_rollback_removes_its_own_files_from_a_network_file_system() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, host2 = local_disk(fleet, vm), fleet.world.hosts["host2"]
        host2.folder(path).mount = "nfs4 nas:/instances"
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert host2.file(path) is None


async def test_room_is_counted_by_what_will_be_written_and_not_by_a_compressed_file() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, folder = local_disk(fleet, vm), fleet.world.hosts["host2"].folder("/var/lib/sterna/instances")
        not_none(fleet.world.hosts["host1"].file(path)).data_bytes = 4 << 30
        folder.capacity_bytes = 3 << 30
        assert await reasons(fleet, vm) == ["disk-space-short"]
        folder.capacity_bytes = 8 << 30
        assert await reasons(fleet, vm) == []


def tpm_at(fleet: SimFleet, vm: str, folder: str) -> None:
    """The VM on host1 has the state of its TPM there."""
    fleet.world.make_directory("host1", folder)
    fleet.world.put_file("host1", f"{folder}/tpm2-00.permall", SimFile(1 << 12, content="keys"))
    domain = fleet.world.hosts["host1"].domains[vm]
    state = (StateFile(kind="tpm", path=folder),)
    domain.live = domain.inactive = replace(not_none(domain.live), firmware=state)


@pytest.mark.parametrize("folder, codes", [("/srv/shared/tpm", ["tpm-shared"]), ("/var/lib/libvirt/swtpm/1", [])])
async def test_the_state_of_a_tpm_that_both_hosts_see_is_refused(folder: str, codes: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        tpm_at(fleet, vm, folder)
        assert await reasons(fleet, vm) == codes
        assert not [name for f in fleet.world.hosts["host1"].folders for name in f.files if ".sterna-" in name]


async def test_it_is_refused_at_p2_as_well() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        when(fleet.agents["host1"], "snapshot-volumes", lambda: tpm_at(fleet, vm, "/srv/shared/tpm"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        (reason,) = (
            e.data["reason"]
            for e in fleet.agents["host1"].journal.entries(fleet.migration)
            if e.data.get("status") == Status.FAILED
        )
        assert "the VM's TPM" in reason
