"""Monitors of a Ceph image, as definitions and Cinder have them, are no reason to blame a peer."""

from __future__ import annotations

import pytest

from sterna.domain import untrusted
from sterna.domain.errors import BadRequest
from sterna.domain.model import Disk, DiskKind, GuestState, RbdSource, Vm


def vm(monitor: str) -> dict[str, object]:
    rbd = RbdSource(name="volumes/volume-1", monitors=(monitor,))
    disk = Disk(target="vda", kind=DiskKind.RBD, rbd=rbd, local=False)
    return Vm(
        uuid="aaaa", name="tern", state=GuestState.RUNNING, vcpus=1, memory_bytes=1, disks=(disk,)
    ).model_dump(mode="json")


@pytest.mark.parametrize(
    "monitor",
    [
        "10.0.0.1:6789",
        "10.0.0.1",
        "mon1.example",
        "[fd00::1]:6789",
        "fd00::1:6789",
        ":6789",  # libvirt: no name, ceph.conf knows
        "",
        "v2:10.0.0.1:3300",
        "v2:10.0.0.1:3300/0",
        "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]",
        "[v2:[fd00::1]:3300/0,v1:[fd00::1]:6789/0]",
    ],
)
def test_what_ceph_and_libvirt_know_is_taken(monitor: str) -> None:
    assert untrusted.vm(vm(monitor)).disks[0].rbd is not None


@pytest.mark.parametrize(
    "monitor",
    [
        "a b:6789",
        "-o:6789",
        "10.0.0.1:99999",
        "h/system?command=x:6789",
        "[v2:a b:1/0]",
        "v2:x;y:1",
        "a\n:1",
        "v9:a:1",
    ],
)
def test_nothing_else_is(monitor: str) -> None:
    with pytest.raises(BadRequest, match="monitor"):
        untrusted.vm(vm(monitor))
