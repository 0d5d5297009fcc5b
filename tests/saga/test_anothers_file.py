"""A file that somebody else puts where P8 makes a disk's target is neither taken nor removed."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Permanent
from sterna.domain.files import Created
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.ports.storage import SimStorage
from sterna.sim.world.things import SimFile

from .fleet import SimFleet
from .named_files import local_disk
from .playing import when


def by_hand(fleet: SimFleet, path: str, size: int) -> None:
    """Somebody copies the disk to the destination, maybe in the place of what Sterna has made."""
    fleet.world.remove_file("host2", path)
    fleet.world.make_directory("host2", path.rpartition("/")[0])
    fleet.world.put_file("host2", path, SimFile(size, content="by hand"))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_file_made_by_hand_stays(whole: bool, moment: str) -> None:
    """Before P8 acts the migration fails; afterwards it is kept in the rollback. Also where its size is right."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        (disk,) = (d for d in fleet.world.hosts["host1"].domains[vm].definition.disks if d.path == path)
        size = (disk.capacity_bytes or 0) if whole else 7
        when(fleet.agents["host2"], "create-instance-directory", lambda: by_hand(fleet, path, size), moment)
        if moment == "after":
            fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        file = fleet.world.hosts["host2"].file(path)
        assert file is not None and file.content == "by hand"
        kept = fleet.agents["host2"].history(fleet.migration).results["remove-instance-directory"]["kept"]
        assert path in kept


async def test_what_was_reserved_is_removed_though_not_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = SimStorage.reserve_targets

    async def reserve(of: SimStorage, created: Created, mark: str) -> dict[str, str]:
        await real(of, created, mark)
        raise Permanent("the agent ends before it has noted what it made")

    monkeypatch.setattr(SimStorage, "reserve_targets", reserve)
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.hosts["host2"].file(path) is None
        outcome = fleet.agents["host2"].history(fleet.migration).results["remove-instance-directory"]
        assert outcome["removed"] == [path] and not outcome["kept"]


async def test_a_folder_that_the_destination_made_on_shared_storage_stays() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        for host in ("host1", "host2"):
            fleet.world.hosts[host].instances_dir = "/srv/shared/instances"
        fleet.world.make_directory("host1", "/srv/shared/instances")
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host2"].directory_exists(f"/srv/shared/instances/{vm}")
        removed = fleet.agents["host1"].history(fleet.migration).results["remove-vm-at-source"]
        assert not removed["kept"]  # it is not left over
        assert not [p for p in fleet.world.snapshot("host1").files if ".sterna-" in p]
