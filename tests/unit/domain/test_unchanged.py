"""What counts as a change of a VM between P2 and its copy."""

from sterna.domain.claims import left_behind, without_medium
from sterna.domain.model import Disk, DiskKind, GuestState, Vm
from sterna.domain.unchanged import changes

CD = Disk(target="sda", kind=DiskKind.FILE, device="cdrom", path="/isos/a.iso", read_only=True, optional=True)


def vm(disk: Disk) -> Vm:
    return Vm(uuid="u", name="tern", state=GuestState.RUNNING, memory_bytes=1, vcpus=1, disks=(disk,))


def test_a_medium_that_stays_behind_is_in_its_drive_until_the_copy() -> None:
    prepared = without_medium(CD)
    assert (left_behind(CD), left_behind(prepared)) == (None, "/isos/a.iso")
    assert changes(vm(prepared), vm(CD)) == ()


def test_another_medium_in_that_drive_or_none_is_a_change() -> None:
    prepared = vm(without_medium(CD))
    ejected = CD.model_copy(update={"kind": DiskKind.EMPTY, "path": None})
    assert changes(prepared, vm(ejected)) == ("disk sda is empty now, it was /isos/a.iso",)
    another = CD.model_copy(update={"path": "/isos/b.iso"})
    assert changes(prepared, vm(another)) == ("disk sda is /isos/b.iso now, it was /isos/a.iso",)
