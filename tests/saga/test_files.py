"""No file is removed that somebody else needs, in a plan's time or meanwhile (docs/reference/files.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from sterna.domain.errors import Refused
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import SimFile
from tests.asking import to_check
from tests.narrowing import not_none

from .fleet import SimFleet
from .named_files import NVRAM, kept, local_disk, nvram_at, other, reasons


@pytest.mark.parametrize("host", ["host1", "host2"])
async def test_a_file_that_another_domain_of_either_host_names_is_refused(host: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        assert await reasons(fleet, vm) == []
        other(fleet, host, local_disk(fleet, vm))
        assert await reasons(fleet, vm) == ["disk-in-use"]


async def test_storage_that_libvirt_takes_for_local_is_refused_before_libvirt_refuses_it() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared", "local", "iscsi"))
        fleet.world.shared["/srv/shared"].known = False
        assert await reasons(fleet, vm) == ["folder-not-known-as-shared"]
        fleet.world.shared["/srv/shared"].known = True
        assert await reasons(fleet, vm) == []


async def test_read_only_storage_need_not_be_known_as_shared() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        fleet.world.shared["/srv/shared"].known = False
        domain = fleet.world.hosts["host1"].domains[vm]
        disks = tuple(disk.model_copy(update={"read_only": True}) for disk in not_none(domain.live).disks)
        domain.live = replace(not_none(domain.live), disks=disks)
        assert await reasons(fleet, vm) == []


async def moved(fleet: SimFleet, vm: str, at: str, meanwhile: Callable[[], None], *, fails: bool = False) -> Status:
    """Migrate; `meanwhile` happens when the step `at` of the source has been done."""
    source = fleet.agents["host1"]
    source.rules.append((at, "after", meanwhile))
    if fails:
        source.rules.append(("copy", "before", "permanent"))
    await fleet.start(vm)
    return await fleet.ended()


async def test_a_file_that_somebody_begins_to_use_is_kept_and_said() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        assert await moved(fleet, vm, "interlock", lambda: other(fleet, "host1", path)) is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"] and vm not in fleet.world.hosts["host1"].domains
        assert fleet.world.hosts["host1"].file(path) is not None
        assert "VM other" in kept(fleet)[path]
        (said,) = (
            e.data["reason"]
            for e in fleet.agents["host1"].journal.entries(fleet.migration)
            if e.data.get("status") == Status.COMPLETED
        )
        assert path in said and "VM other" in said
        answer = await fleet.client.call("host1", "audit", {"others": ["host2"], "silent": [], "repair": True})
        (left,) = answer["leftovers"]
        assert (left["kind"], left["subject"], left["safety"]) == ("files", path, "never")
        assert "VM other" in left["why"] and fleet.world.hosts["host1"].file(path) is not None


async def test_a_file_that_was_replaced_meanwhile_is_kept() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)

        def replaced() -> None:
            world = fleet.world
            world.remove_file("host1", path)
            world.put_file("host1", path, SimFile(1 << 20, content="somebody else's"))

        assert await moved(fleet, vm, "find-volumes-to-disconnect", replaced) is Status.COMPLETED
        file = fleet.world.hosts["host1"].file(path)
        assert file is not None and file.content == "somebody else's"
        assert "not the file" in kept(fleet)[path]


@pytest.mark.parametrize(("held_s", "is_kept"), [(3.0, False), (600.0, True)])
async def test_a_lock_that_is_held_for_a_moment_keeps_no_file(held_s: float, is_kept: bool) -> None:
    """A backup, or `qemu-img info`, looks at the disk as it is about to be removed."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, host = local_disk(fleet, vm), fleet.world.hosts["host1"]

        def locked() -> None:
            users = host.folder(path).users.setdefault(path, set())
            users.add(("host1", "backup"))
            fleet.later(held_s, lambda: users.discard(("host1", "backup")))

        source = fleet.agents["host1"]
        source.rules.append(("remove-vm-at-source", "before", locked))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (path in kept(fleet)) == is_kept == (host.file(path) is not None)
        assert not is_kept or "holds a lock" in kept(fleet)[path]


async def test_what_cannot_be_removed_holds_nothing_up() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, host = local_disk(fleet, vm), fleet.world.hosts["host1"]

        def changed() -> None:
            host.instances_dir = "/srv/elsewhere"  # the settings were changed, the agent restarted

        assert await moved(fleet, vm, "find-volumes-to-disconnect", changed) is Status.COMPLETED
        assert "outside" in kept(fleet)[path] and host.file(path) is not None


NAS, SHARED = "/mnt/nas", "/srv/shared"
ISO = f"{NAS}/debian.iso"


@pytest.mark.parametrize("host", ["host1", "host2"])
async def test_a_dead_file_system_of_another_vm_holds_no_migration_up(host: str) -> None:
    """It was looked at when the migration began: it leads to no file of this one."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        nvram_at(fleet, vm)
        other(fleet, host, ISO)

        def dies() -> None:
            fleet.world.hosts[host].silent.add(NAS)

        assert await moved(fleet, vm, "interlock", dies) is Status.COMPLETED
        assert kept(fleet) == {}
        assert fleet.world.hosts["host1"].file(path) is None
        assert fleet.world.hosts["host1"].file(NVRAM) is None


@pytest.mark.parametrize("host", ["host1", "host2"])
async def test_what_may_lead_to_the_file_for_all_that_is_known_keeps_it_and_the_migration_ends(host: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        other(fleet, host, ISO)
        fleet.world.hosts[host].silent.add(NAS)  # before any look
        assert await reasons(fleet, vm) == []
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.hosts["host1"].file(path) is not None
        assert f"perhaps VM other (shutoff): {ISO} does not answer" in kept(fleet)[path]


@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("folder", ["/srv/shared", "/var/lib/sterna/instances"])
async def test_a_check_names_what_does_not_answer_where_and_what_to_do(host: str, folder: str) -> None:
    """Before whoever asks has left: a plan waits for 60 s."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared", "local"))
        fleet.world.hosts[host].silent.add(folder)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"), total_s=50.0)
        (refusal,) = answer["refusals"]
        assert refusal["code"] == "path-silent" and refusal["fix"]
        assert re.match(f"on {host}, {folder}.*does not answer", refusal["message"])
        with pytest.raises(Refused, match=f"on {host}, {folder}"):
            await fleet.start(vm)
        assert not fleet.agents["host1"].journal.open()


async def test_a_disk_that_dies_before_the_volumes_are_read_fails_the_migration_with_its_name() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared", "local"))
        source = fleet.agents["host1"]
        source.rules.append(("snapshot-volumes", "before", lambda: fleet.world.hosts["host1"].silent.add(SHARED)))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        (why,) = (
            str(e.data["reason"])
            for e in source.journal.entries(fleet.migration)
            if e.data.get("status") == Status.FAILED
        )
        assert f"on host1, {SHARED}" in why
        assert fleet.world.running(vm) == ["host1"]


async def test_a_rollback_removes_what_it_made_whatever_else_does_not_answer() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        other(fleet, "host2", ISO)
        fleet.world.hosts["host2"].silent.add(NAS)
        source = fleet.agents["host1"]
        source.rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.hosts["host2"].file(path) is None


async def test_a_disk_whose_own_file_system_dies_is_kept_and_said() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path, host = local_disk(fleet, vm), fleet.world.hosts["host1"]

        def dies() -> None:
            host.silent.add(host.instances_dir)

        assert await moved(fleet, vm, "find-volumes-to-disconnect", dies) is Status.COMPLETED
        assert "does not answer" in kept(fleet)[path] and host.file(path) is not None


def fails(fleet: SimFleet, host: str, how: str) -> Callable[[], None]:
    """From then on, all files of that host."""
    here = fleet.world.hosts[host]

    def now() -> None:
        if how == "silent":
            here.silent |= {here.instances_dir, SHARED}
        else:
            for folder in here.folders:
                folder.read_only = True

    return now


@pytest.mark.parametrize("how", ["silent", "read-only"])
@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("disks", [("local", "shared"), ("shared",), ("volume",)])
async def test_no_vm_stays_locked_for_files_after_the_switch_over(
    disks: tuple[str, ...], host: str, how: str
) -> None:
    """Nor for those of a VM that has none there."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=disks)
        assert await moved(fleet, vm, "find-volumes-to-disconnect", fails(fleet, host, how)) is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert not any(agent.journal.open() for agent in fleet.agents.values())


@pytest.mark.parametrize("how", ["silent", "read-only"])
@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("disks", [("local", "shared"), ("shared",), ("volume",)])
@pytest.mark.parametrize("at", ["snapshot-volumes", "pre-live-migration"])
async def test_no_vm_stays_locked_for_files_in_a_rollback(
    at: str, disks: tuple[str, ...], host: str, how: str
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=disks)
        assert await moved(fleet, vm, at, fails(fleet, host, how), fails=True) is Status.FAILED
        if (at, host, how) == ("snapshot-volumes", "host2", "silent"):
            fleet.agents["host1"].rules.clear()  # the destination's silence has made it fail before
        assert fleet.world.running(vm) == ["host1"]
        assert not any(agent.journal.open() for agent in fleet.agents.values())


async def test_a_token_that_cannot_be_removed_is_left_to_the_audit() -> None:
    """Its file system has become read-only meanwhile."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        read_only = fails(fleet, "host1", "read-only")

        def left() -> None:
            fleet.world.put_file("host1", f"{SHARED}/.sterna-{fleet.migration}-source", SimFile(1, content="token"))
            read_only()

        assert await moved(fleet, vm, "snapshot-volumes", left, fails=True) is Status.FAILED
        assert fleet.agents["host1"].history(fleet.migration).results["drop-tokens"]["left"]


async def test_a_rollback_keeps_what_a_domain_of_the_destination_came_to_use() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        path = local_disk(fleet, vm)
        meanwhile = lambda: other(fleet, "host2", path)  # noqa: E731
        assert await moved(fleet, vm, "pre-live-migration", meanwhile, fails=True) is Status.FAILED
        assert fleet.world.hosts["host2"].file(path) is not None
        undone = fleet.agents["host2"].history(fleet.migration).results["remove-instance-directory"]
        assert "VM other" in undone["kept"][path]
        assert fleet.world.running(vm) == ["host1"]


async def test_a_rollback_removes_what_it_made() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        before = fleet.snapshots()
        assert await moved(fleet, vm, "pre-live-migration", lambda: None, fails=True) is Status.FAILED
        assert fleet.snapshots() == before


@pytest.mark.parametrize("shared", [True, False])
async def test_nvram_is_removed_only_where_the_destination_does_not_see_it(shared: bool) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        world = fleet.world
        vm = add_vm(world, "host1", "tern", disks=("shared",))
        if shared:
            world.share("/var/lib/libvirt/qemu/nvram", "host1", "host2")
        nvram_at(fleet, vm)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (world.hosts["host1"].file(NVRAM) is not None) is shared


async def test_every_file_a_disk_stands_on_is_compared() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        world = fleet.world
        vm = add_vm(world, "host1", "tern", disks=("shared",))
        domain = world.hosts["host1"].domains[vm]
        assert domain.live is not None
        for chain, code in (
            (("/srv/shared/base.img",), None),
            (("/srv/shared/base.img", "/srv/base.img"), "disk-backing-file"),
            (("nbd://elsewhere/base",), "disk-backing-file"),
            (("/srv/shared/none.img",), "disk-backing-file"),
        ):
            disks = (domain.live.disks[0].model_copy(update={"chain": chain}),)
            domain.live = domain.inactive = replace(domain.live, disks=disks)
            world.make_directory("host1", "/srv")
            world.put_file("host1", "/srv/shared/base.img", SimFile(1 << 20))
            world.put_file("host1", "/srv/base.img", SimFile(1 << 20))
            assert await reasons(fleet, vm) == ([code] if code else []), chain


async def test_what_changes_between_plan_and_snapshot_is_seen_by_p2() -> None:
    """A snapshot on a local file, taken when the migration had been accepted."""
    async with SimFleet() as fleet, fleet.clock.auto():
        world = fleet.world
        vm = add_vm(world, "host1", "tern", disks=("shared",))
        domain = world.hosts["host1"].domains[vm]
        world.make_directory("host1", "/srv")
        world.put_file("host1", "/srv/base.img", SimFile(1 << 20))

        def changed() -> None:
            assert domain.live is not None
            disks = (domain.live.disks[0].model_copy(update={"chain": ("/srv/base.img",)}),)
            domain.live = domain.inactive = replace(domain.live, disks=disks)

        assert await moved(fleet, vm, "set-preparing", changed) is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]


@pytest.mark.parametrize(("where", "code"), [("/srv/shared", None), ("/srv", "disk-only-persistent")])
async def test_a_disk_of_the_persistent_definition_only(where: str, code: str | None) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        world = fleet.world
        vm = add_vm(world, "host1", "tern", disks=("shared",))
        domain = world.hosts["host1"].domains[vm]
        assert domain.inactive is not None
        second = domain.inactive.disks[0].model_copy(update={"target": "vdz", "path": f"{where}/second.img"})
        domain.inactive = replace(domain.inactive, disks=(*domain.inactive.disks, second))
        assert await reasons(fleet, vm) == []  # missing here as well
        world.make_directory("host1", where)
        world.put_file("host1", f"{where}/second.img", SimFile(second.capacity_bytes or 0))
        assert await reasons(fleet, vm) == ([code] if code else [])
