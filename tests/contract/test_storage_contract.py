"""What every `ports.storage.Storage` does."""

import pytest

from sterna.domain.errors import Conflict, Permanent
from sterna.domain.files import Created
from tests.contract.two_hosts import TwoHosts


async def test_targets_of_local_disks(hosts: TwoHosts) -> None:
    vm = await hosts.vm("local")
    there = hosts.b.storage
    assert await there.check_targets(vm.disks) == []
    created = await there.plan_targets(vm.uuid, vm.disks)
    assert created.files == (vm.disks[0].path,)
    assert await there.directories_of(vm.uuid) == ()
    for _ in range(2):
        made = await there.reserve_targets(created, "m1")
    assert await there.reserved(created, "m1") == made and await there.reserved(created, "m2") == {}
    with pytest.raises(Conflict):
        await there.reserve_targets(created, "m2")
    for _ in range(2):
        await there.create_targets(vm.disks, made)
    assert await there.directories_of(vm.uuid) == created.directories
    assert not await there.is_empty(created.directories[0])
    assert await there.readable(created.files[0])
    assert [r.code for r in await there.check_targets(vm.disks)] == ["disk-file-exists"]
    with pytest.raises(Conflict):
        await there.plan_targets(vm.uuid, vm.disks)
    await there.remove(Created(files=created.files))
    assert await there.is_empty(created.directories[0])
    for _ in range(2):
        await there.remove(created)
    assert not await there.is_empty(created.directories[0])
    assert not await there.readable(created.files[0])
    assert await there.directories_of(vm.uuid) == ()
    assert await hosts.a.storage.readable(created.files[0])


async def test_nothing_outside_the_instances_directory_is_removed(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    path = vm.disks[0].path or ""
    for given in (path, f"{hosts.b.instances}/../{path}"):
        with pytest.raises(Permanent):
            await hosts.b.storage.remove(Created(files=(given,)))
    assert await hosts.b.storage.readable(path)


async def test_a_local_disk_that_could_not_be_removed_after_its_move_is_told(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "local")
    assert await hosts.a.storage.check_sources(vm.disks[1:]) == []
    (refusal,) = await hosts.a.storage.check_sources(vm.disks)
    assert refusal.code == "disk-outside-instances" and vm.disks[0].target in refusal.message and refusal.fix


async def test_tokens_prove_what_is_shared(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "local")
    for disk, shared in zip(vm.disks, (True, False), strict=True):
        path = disk.path or ""
        await hosts.a.storage.leave_token(path, "token-1")
        assert await hosts.a.storage.tokens(path) == ("token-1",)
        assert await hosts.a.storage.sees_token(path, "token-1")
        assert await hosts.b.storage.sees_token(path, "token-1") is shared
        assert not await hosts.b.storage.sees_token(path, "token-2")
        for _ in range(2):
            await hosts.a.storage.drop_token(path, "token-1")
        assert not await hosts.a.storage.sees_token(path, "token-1")
        assert await hosts.a.storage.tokens(path) == ()
