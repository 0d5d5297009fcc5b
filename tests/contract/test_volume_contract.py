"""What every `ports.volume.Volumes` does, for iSCSI and for files on shared storage."""

import pytest

from sterna.domain.errors import Temporary
from sterna.domain.model import DiskKind
from tests.contract.two_hosts import TwoHosts
from tests.narrowing import not_none


async def test_iscsi_needs_admission_and_storage_itself_refuses_without(hosts: TwoHosts) -> None:
    vm = await hosts.vm("iscsi")
    (disk,) = vm.disks
    there = hosts.b.iscsi
    assert await there.check(disk, hosts.a.name) == []
    with pytest.raises(Temporary):
        await there.connect(disk)
    assert not await there.admitted(disk)
    assert await hosts.a.iscsi.admitted(disk)
    attached = await there.attach(disk, hosts.a.name)
    assert await there.admitted(disk)
    assert attached.iscsi.initiator != not_none(disk.iscsi).initiator
    assert (await there.attach(disk, hosts.a.name)) == attached
    assert (await there.connect(attached)).iscsi.initiator == attached.iscsi.initiator
    await there.disconnect(attached)
    for _ in range(2):
        await there.detach(attached)
    assert not await there.admitted(disk)
    with pytest.raises(Temporary):
        await there.connect(disk)
    assert (await hosts.a.iscsi.connect(disk)).iscsi.initiator == not_none(disk.iscsi).initiator


async def test_a_volume_that_is_gone(hosts: TwoHosts) -> None:
    vm = await hosts.vm("iscsi")
    (disk,) = vm.disks
    gone = disk.model_copy(
        update={"iscsi": not_none(disk.iscsi).model_copy(update={"target": "iqn.2026-11.org.sterna:none"})}
    )
    assert [r.code for r in await hosts.b.iscsi.check(gone, hosts.a.name)] == ["volume-missing"]
    assert not await hosts.b.iscsi.admitted(gone)
    await hosts.b.iscsi.detach(gone)


async def test_shared_files(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    (disk,) = vm.disks
    assert disk.kind is DiskKind.FILE
    assert disk.local is False
    for side in (hosts.a, hosts.b):
        assert await side.files.check(disk, hosts.a.name) == []
        attached = await side.files.attach(disk, hosts.a.name)
        assert (await side.files.connect(attached)).path == disk.path
    missing = disk.model_copy(update={"path": f"{disk.path}.none"})
    (refusal,) = await hosts.b.files.check(missing, hosts.a.name)
    assert refusal.fix
    await hosts.b.files.disconnect(disk)
    await hosts.b.files.detach(disk)
