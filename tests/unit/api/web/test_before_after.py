"""What a plan does to each host, and what of a VM is different on the destination. Pure."""

from __future__ import annotations

from typing import Any

from sterna.api.operation_models import PlannedMoveOut
from sterna.api.web.before_after import bounds_of, changes, ours
from sterna.api.web.differences import Difference, devices_of
from sterna.controller.records.registry import Host
from sterna.domain.copying import DestinationDisk, DestinationNic
from sterna.domain.entries.source import Answer
from sterna.domain.fleet.plans import Bounds
from sterna.domain.journal import Kind, Role
from sterna.domain.model import Disk, DiskKind, GuestState, Nic, Vm
from sterna.ports.fleet import VmRecord
from tests.unit.controller.conftest import World
from tests.unit.controller.fakes import GIB
from tests.unit.domain.journals import Book


def move(vm: str, source: str, destination: str, **more: Any) -> PlannedMoveOut:
    known = {"vm_uuid": vm, "vm_name": vm, "source": source, "destination": destination, "purpose": "empty"}
    return PlannedMoveOut.model_validate(known | {"begun": False, "start_s": 0.0, "end_s": 1.0} | more)


def vm(uuid: str, host: str, state: GuestState = GuestState.RUNNING) -> VmRecord:
    return VmRecord(uuid=uuid, name=uuid, host=host, state=state, memory_bytes=GIB, vcpus=1)


async def hosts(world: World) -> list[Host]:
    return await world.controller.registry.hosts()


async def test_each_host_before_and_after(world: World) -> None:
    vms = [
        vm("1", "a"),
        vm("2", "a", GuestState.SHUTOFF),
        vm("3", "b"),
        vm("4", "c"),
        vm("5", "a", GuestState.ABSENT),
    ]
    found = changes(await hosts(world), vms, [move("1", "a", "b"), move("2", "a", "b")], ["a"])
    assert [one.host for one in found] == ["a", "b"], "what nothing touches is not there"
    a, b = found
    assert (a.emptied, a.vms, a.memory, a.sends, a.takes) == (True, (2, 0), (GIB, 0), GIB, 0)
    assert (b.emptied, b.vms, b.memory, b.sends, b.takes) == (False, (1, 3), (GIB, 2 * GIB), 0, GIB)
    assert b.percents == (6, 12) and b.total == 16 * GIB


async def test_one_that_is_parked_moves_twice(world: World) -> None:
    found = changes(await hosts(world), [vm("1", "a")], [move("1", "a", "b"), move("1", "b", "c")], [])
    assert [(one.host, one.vms) for one in found] == [("a", (1, 0)), ("b", (0, 0)), ("c", (0, 1))]


def test_what_others_have_begun_is_not_the_plans() -> None:
    running = [move("1", "a", "b", begun=True), move("2", "b", "c", begun=True), move("3", "b", "c")]
    assert [one.vm_uuid for one in ours(running, ["a"])] == ["1", "3"]


def test_the_longest_bound_is_first() -> None:
    found = bounds_of(Bounds(egress_s=10, largest_s=20))
    assert found == [("the VM that takes longest alone", 20.0), ("the fullest host has to send what it has", 10.0)]
    assert set(Bounds.model_fields) == {name for name in Bounds.model_fields if bounds_of(Bounds(**{name: 1.0}))}


# ------------------------------------------------------------ the definition

DISK = Disk(target="vda", kind=DiskKind.FILE, path="/a/web1.qcow2")
NIC = Nic(mac="52:54:00:00:00:01", plug="ovs", bridge="br-int", device="vnet3")


def asked(*disks: DestinationDisk, nics: tuple[DestinationNic, ...] = (), **more: Any) -> Book:
    guest = Vm(
        uuid="1", name="web1", state=GuestState.RUNNING, memory_bytes=GIB, vcpus=1, disks=(DISK,), nics=(NIC,)
    )
    answer = Answer(disks=disks, nics=nics, address="10.0.0.2", **more)
    book = Book(Role.SOURCE).accepted().write(Kind.INTENT, "P2", "snapshot-volumes")
    book.write(Kind.DONE, "P2", "snapshot-volumes", {"vm": guest.model_dump(mode="json")})
    return book.write(Kind.NOTE, "P11", "pre-live-migration-result", answer.model_dump(mode="json"))


def test_only_what_is_different_is_named() -> None:
    same = DestinationDisk(target="vda", kind=DiskKind.FILE, path=DISK.path)
    plug = DestinationNic(mac=NIC.mac, plug="ovs", bridge="br-int", device="tap7")
    found = devices_of(asked(same, nics=(plug,)).entries)
    assert found == []


def test_disks_nics_and_addresses() -> None:
    moved = DestinationDisk(target="vda", kind=DiskKind.FILE, path="/b/web1.qcow2", copied=True)
    plug = DestinationNic(mac=NIC.mac, plug="bridge", bridge="br0", vlan=7)
    found = devices_of(asked(moved, nics=(plug,), listens={"10.0.0.1": "10.0.0.2"}).entries)
    assert found == [
        Difference("disk vda", "/a/web1.qcow2", "/b/web1.qcow2", "copied"),
        Difference(f"NIC {NIC.mac}", "ovs: bridge br-int", "bridge: bridge br0, vlan 7"),
        Difference("listens at", "10.0.0.1", "10.0.0.2"),
    ]


def test_nothing_before_the_destination_has_answered() -> None:
    assert devices_of(Book(Role.SOURCE).accepted().entries) is None
