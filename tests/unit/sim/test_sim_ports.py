"""The smaller ports on the simulated world: switch, volumes, files, bindings, checks."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Conflict, NotFound, Permanent, Refused, Temporary, Unreachable
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind, GuestState, Nic
from sterna.domain.plugs import as_bound
from sterna.ports.hypervisor import Hypervisor
from sterna.ports.network import Network
from sterna.ports.storage import Storage
from sterna.ports.vif import Vif
from sterna.ports.volume import Volumes
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import GIB, SimFile
from tests.sim_world import EPOCH, SimSide

VM = "aaaaaaaa-0000-4000-8000-000000000001"
NIC = Nic(mac="52:54:00:00:00:01", plug="ovs", port_id="port-1", bridge="br-int", vlan=100, mtu=1400)


def implements(world: SimWorld) -> tuple[Hypervisor, Vif, Storage, Volumes, Volumes, Network]:
    """mypy proves that every adapter fits its port."""
    return (
        SimHypervisor(world, "a"),
        SimVif(world, "a"),
        SimStorage(world, "a"),
        SimSharedFiles(world, "a"),
        SimIscsiVolumes(world, "a"),
        SimNetwork(world),
    )


async def test_plug_describe_unplug(world: SimWorld, b: SimSide) -> None:
    assert await b.vif.describe(NIC) is None
    made = await b.vif.plug(NIC, vm_uuid=VM, device="tap1")
    assert made == await b.vif.plug(NIC, vm_uuid=VM, device="tap1"), "may be repeated"
    assert (made.device, made.managed) == ("tap1", False)
    assert made.external_ids == {
        "iface-id": "port-1",
        "iface-status": "active",
        "attached-mac": NIC.mac,
        "vm-uuid": VM,
        "made-by": "sterna",
    }
    found = await b.vif.describe(NIC.model_copy(update={"bridge": None, "vlan": None}))
    assert found is not None and (found.bridge, found.vlan, found.device) == ("br-int", 100, "tap1")
    assert await b.vif.wired(made) and not await b.vif.wired(made.model_copy(update={"device": "tap2"}))
    b.host.switch_forwards = False
    assert not await b.vif.wired(made)
    with pytest.raises(Conflict, match="left alone"):
        await b.vif.unplug(made.model_copy(update={"bridge": "br-ex"}))
    assert await b.vif.unplug(made)
    assert not await b.vif.unplug(made)
    assert not b.host.taps and not b.host.ports


async def test_plug_refuses_what_belongs_to_something_else(world: SimWorld, b: SimSide) -> None:
    world.add_vm("b", "other")
    with pytest.raises(Conflict, match="iface-id"):
        await b.vif.plug(NIC, vm_uuid=VM, device="vnet0")
    await b.vif.plug(NIC, vm_uuid=VM, device="tap1")
    with pytest.raises(Conflict, match="vm-uuid"):
        await b.vif.plug(NIC, vm_uuid=VM.replace("a", "b"), device="tap1")
    with pytest.raises(NotFound, match="br-ex"):
        await b.vif.plug(NIC.model_copy(update={"bridge": "br-ex"}), vm_uuid=VM, device="tap2")
    assert [r.code for r in await b.vif.check(NIC.model_copy(update={"bridge": "br-ex"}))] == ["bridge-missing"]


async def test_a_name_alone_proves_nothing(world: SimWorld, a: SimSide) -> None:
    world.add_vm("a", "other")
    assert await a.vif.describe(NIC.model_copy(update={"device": "vnet0"})) is None


async def test_iscsi_admission(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("iscsi",))
    (disk,) = (await a.hypervisor.vm(uuid)).disks
    assert b.iscsi.handles(disk) and await b.iscsi.check(disk, "a") == []
    with pytest.raises(Temporary, match="Target not found"):
        await b.iscsi.connect(disk)
    mine = await b.iscsi.attach(disk, "a")
    assert mine.iscsi is not None and mine.iscsi.initiator == b.host.initiator
    assert await b.iscsi.connect(mine) == mine
    assert world.snapshot("b").admissions == (mine.iscsi.target,)
    await b.iscsi.detach(disk)
    await b.iscsi.detach(disk)
    assert world.snapshot("b").admissions == ()
    assert world.snapshot("a").admissions and world.snapshot("a").sessions

    world.iscsi.up = False
    assert [r.code for r in await b.iscsi.check(disk, "a")] == ["volume-service-down"]
    with pytest.raises(Unreachable):
        await b.iscsi.detach(disk)
    world.iscsi.up = True
    gone = disk.model_copy(update={"iscsi": mine.iscsi.model_copy(update={"target": "iqn.none"})})
    assert [r.code for r in await b.iscsi.check(gone, "a")] == ["volume-missing"]
    await b.iscsi.detach(gone)


async def test_a_volume_the_host_attaches_leaves_a_device_until_it_is_disconnected(
    world: SimWorld, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", disks=("block",))
    (disk,) = (await a.hypervisor.vm(uuid)).disks
    assert b.attached.handles(disk) and not b.iscsi.handles(disk)
    with pytest.raises(Temporary, match="Target not found"):
        await b.attached.connect(disk)
    mine = await b.attached.attach(disk, "a")
    assert mine.iscsi is not None
    assert world.snapshot("b").devices == {}
    for _ in range(2):
        await b.attached.connect(mine)
    assert world.snapshot("b").devices == {disk.path: mine.iscsi.target}
    assert world.snapshot("b").sessions == ((mine.iscsi.target, ""),)
    for _ in range(2):
        await b.attached.disconnect(mine)
    assert world.snapshot("b").devices == {} and world.snapshot("b").sessions == ()
    await b.attached.detach(mine)
    assert world.snapshot("a").devices and world.snapshot("a").admissions
    await a.attached.disconnect(disk)
    for words in ("its device", "its session was cut"):
        assert any(words in v.text for v in world.violations)
    world.violations.clear()


async def test_shared_files(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("shared", "local"))
    shared, local = (
        (d.model_copy(update={"local": i == 1})) for i, d in enumerate((await a.hypervisor.vm(uuid)).disks)
    )
    assert b.shared_files.handles(shared) and not b.shared_files.handles(local)
    assert await b.shared_files.check(shared, "a") == []
    assert await b.shared_files.connect(await b.shared_files.attach(shared, "a")) == shared
    for broken in (local, shared.model_copy(update={"capacity_bytes": 1})):
        assert [r.code for r in await b.shared_files.check(broken, "a")] == ["shared-file-unusable"]
        with pytest.raises(Permanent):
            await b.shared_files.connect(broken)
    assert await b.storage.readable(str(shared.path))
    b.host.denied.add(str(shared.path))
    assert not await b.storage.readable(str(shared.path))
    assert "Permission denied" in (await b.shared_files.check(shared, "a"))[0].message
    await b.shared_files.disconnect(shared)
    await b.shared_files.detach(shared)
    assert world.running(uuid) == ["a"]


async def test_tokens_prove_what_is_shared(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("shared", "local"))
    shared, local = (str(d.path) for d in (await a.hypervisor.vm(uuid)).disks)
    before = world.snapshot("a"), world.snapshot("b")
    for path, both in ((shared, True), (local, False)):
        await a.storage.leave_token(path, "t1")
        assert await a.storage.sees_token(path, "t1")
        assert await b.storage.sees_token(path, "t1") is both
        assert not await b.storage.sees_token(path, "t2")
        await a.storage.drop_token(path, "t1")
        await a.storage.drop_token(path, "t1")
    assert before == (world.snapshot("a"), world.snapshot("b"))
    with pytest.raises(Permanent, match="No such file"):
        await b.storage.leave_token(local, "t1")


async def test_targets_of_local_disks(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("local",))
    disks = (await a.hypervisor.vm(uuid)).disks
    before = world.snapshot("b")
    assert await b.storage.check_targets(disks) == []
    created = await b.storage.plan_targets(uuid, disks)
    assert created.files == (disks[0].path,)
    assert created.directories == (f"{b.host.instances_dir}/{uuid}",)
    with pytest.raises(Permanent, match="No such file"):
        await b.storage.reserve_targets(created.model_copy(update={"directories": ()}), "m1")
    made = await b.storage.reserve_targets(created, "m1")
    await b.storage.create_targets(disks, made)
    await b.storage.create_targets(disks, made)
    file = b.host.file(created.files[0])
    assert file is not None and (file.size_bytes, file.allocated_bytes) == (disks[0].capacity_bytes, 0)
    assert await b.storage.directories_of(uuid) == created.directories
    assert [r.code for r in await b.storage.check_targets(disks)] == ["disk-file-exists"]
    with pytest.raises(Conflict, match="already exists"):
        await b.storage.plan_targets(uuid, disks)
    with pytest.raises(Conflict, match="not planned"):
        await b.storage.create_targets(disks, {})
    await b.storage.remove(created)
    await b.storage.remove(created)
    assert before.diff(world.snapshot("b")) == []
    assert await b.storage.directories_of(uuid) == ()


async def test_removal_keeps_what_is_not_ours(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("local",))
    created = await b.storage.plan_targets(uuid, (await a.hypervisor.vm(uuid)).disks)
    await b.storage.reserve_targets(created, "m1")
    world.put_file("b", f"{created.directories[0]}/notes.txt", SimFile(1))
    await b.storage.remove(created)
    assert b.host.directory_exists(created.directories[0])
    for path in ("/etc/passwd", "/srv/shared/vm1-vda.img", f"{b.host.instances_dir}/../x", b.host.instances_dir):
        with pytest.raises(Permanent, match="outside"):
            await b.storage.remove(Created(files=(path,)))


async def test_a_full_disk(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("local",))
    disks = (await a.hypervisor.vm(uuid)).disks
    created = await b.storage.plan_targets(uuid, disks)
    b.host.root.capacity_bytes = 0
    assert [r.code for r in await b.storage.check_targets(disks)] == ["disk-space-short"]
    with pytest.raises(Permanent, match="No space left"):
        await b.storage.reserve_targets(created, "m1")
    others = (
        Disk(target="vda", kind=DiskKind.ISCSI),
        Disk(target="vdb", kind=DiskKind.FILE, path="/elsewhere/x", backing_path="/base", capacity_bytes=1),
    )
    codes = [r.code for r in await b.storage.check_targets(others)]
    assert codes == ["disk-not-a-file", "disk-backing-file", "disk-outside-instances", "disk-space-short"]


async def test_bindings(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", nics=2)
    vm = await a.hypervisor.vm(uuid)
    before = world.snapshot("a"), world.snapshot("b")
    with pytest.raises(Refused, match="not bound"):
        await b.network.nics_for(vm, "a", "b")
    await a.network.prepare(vm, "a", "b")
    await a.network.prepare(vm, "a", "b")
    assert await b.network.nics_for(vm, "a", "b") == tuple(as_bound(nic) for nic in vm.nics)
    assert set(world.snapshot("a").bindings.values()) == {"active migrating to b"}
    assert set(world.snapshot("b").bindings.values()) == {"inactive migrating to b"}
    await b.network.withdraw(vm, "a", "b")
    await a.network.withdraw(vm, "a", "b")
    assert before == (world.snapshot("a"), world.snapshot("b"))
    await a.network.prepare(vm, "a", "b")
    await a.network.switch(vm, "a", "b")
    await b.network.switch(vm, "a", "b")
    assert set(world.snapshot("a").bindings.values()) == {"inactive unbound migrating to b"}
    await a.network.give_back(vm, "a", "b")
    assert set(world.snapshot("a").bindings.values()) == {"active migrating to a"}
    await a.network.prepare(vm, "a", "b")
    await a.network.switch(vm, "a", "b")
    await b.network.withdraw(vm, "a", "b")
    assert before == (world.snapshot("a"), world.snapshot("b")), "an active one is given back first"
    await a.network.prepare(vm, "a", "b")
    await b.network.settle(vm, "a", "b")
    await b.network.settle(vm, "a", "b")
    assert set(world.snapshot("b").bindings.values()) == {"active"}
    assert world.snapshot("a").bindings == {}
    macvtap = vm.model_copy(update={"nics": (NIC.model_copy(update={"plug": "other: direct eth0"}),)})
    with pytest.raises(Refused, match="direct"):
        await b.network.nics_for(macvtap, "a", "b")


async def test_a_port_of_another_vm_is_not_bound(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid, others = world.add_vm("a", "vm1"), world.add_vm("a", "vm2")
    (own,), (anothers,) = (await a.hypervisor.vm(uuid)).nics, (await a.hypervisor.vm(others)).nics
    vm = (await a.hypervisor.vm(uuid)).model_copy(update={"nics": (own, anothers)})
    assert [r.code for r in await a.network.check(vm, "a", "b")] == ["port-not-of-vm"]
    with pytest.raises(NotFound, match=uuid):
        await a.network.prepare(vm, "a", "b")
    with pytest.raises(Refused) as refused:
        await b.network.nics_for(vm, "a", "b")
    assert [r.code for r in refused.value.refusals] == ["port-not-of-vm"]
    await b.network.withdraw(vm, "a", "b")
    await b.network.settle(vm, "a", "b")
    assert anothers.port_id and world.bindings[anothers.port_id] == {"a": True}
    assert own.port_id and world.bindings[own.port_id] == {"b": True}


async def test_a_volume_of_another_vm_admits_no_host(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid, other = world.add_vm("a", "vm1", disks=("iscsi",)), world.add_vm("a", "vm2", disks=("iscsi",))
    (disk,) = (await a.hypervisor.vm(uuid)).disks
    anothers = disk.model_copy(update={"vm_uuid": other})
    assert [r.code for r in await b.iscsi.check(anothers, "a")] == ["volume-attachments"]
    with pytest.raises(Permanent, match=other):
        await b.iscsi.attach(anothers, "a")
    assert not await b.iscsi.admitted(disk)


async def test_what_a_hypervisor_has_against_a_guest(world: SimWorld, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1")
    vm = await a.hypervisor.vm(uuid)
    assert await b.hypervisor.check_incoming(vm) == []
    assert [r.code for r in await a.hypervisor.check_incoming(vm)] == ["uuid-taken"]
    taken = vm.model_copy(update={"uuid": VM})
    assert [r.code for r in await a.hypervisor.check_incoming(taken)] == ["name-taken"]
    b.host.qemu_version = 7_002_000
    b.host.refused_cpus.add("<cpu/>")
    odd = vm.model_copy(
        update={"virt_type": "qemu", "machine": "pc-q35-99", "emulator": "/opt/qemu", "cpu_xml": "<cpu/>"}
    )
    codes = {r.code for r in await b.hypervisor.check_incoming(odd)}
    assert codes == {"qemu-too-old", "machine-type-missing", "emulator-missing", "cpu-incompatible"}
    b.host.virt_types = {"qemu"}
    assert [r.code for r in await b.hypervisor.check_incoming(vm)] == ["virt-type-missing"]


async def test_inventory(world: SimWorld, a: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", memory_bytes=GIB)
    world.add_vm("a", "vm2", running=False)
    facts = await a.hypervisor.host()
    assert facts.memory_total_bytes - facts.memory_free_bytes == GIB
    assert [(s.name, s.state) for s in await a.hypervisor.vms()] == [
        ("vm1", GuestState.RUNNING),
        ("vm2", GuestState.SHUTOFF),
    ]
    assert (await a.hypervisor.vm("vm1")).uuid == uuid
    with pytest.raises(NotFound):
        await a.hypervisor.vm("vm3")
    await a.hypervisor.mark(uuid, "m", EPOCH)
    assert (await a.hypervisor.observe(uuid)).epoch == EPOCH
    for call in (a.hypervisor.mark(VM, "m", 1), a.hypervisor.resume(VM, 1), a.hypervisor.set_autostart(VM, True)):
        with pytest.raises(NotFound):
            await call


async def test_autostart_is_a_persistent_domains(world: SimWorld, a: SimSide) -> None:
    kept, lost = world.add_vm("a", "vm1"), world.add_vm("a", "vm2", persistent=False)
    for uuid, on in ((kept, True), (lost, False)):
        await a.hypervisor.set_autostart(uuid, True)
        assert (await a.hypervisor.vm(uuid)).autostart is on
