"""Local disks keep their holes, there and back, and their content."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES
from tests.e2e.conftest import Fleet
from tests.e2e.files import plan

pytestmark = pytest.mark.lab
MIB = 2**20
WRITTEN = "write -P 7 16M 8M"
DISK = """<disk type='file' device='disk'><driver name='qemu' type='{form}'{more}/><source file='{path}'/>
<target dev='vdz' bus='virtio'/></disk>"""
KINDS = {
    "raw": ("raw", "", (), 8),
    "raw that may discard": ("raw", " discard='unmap'", (), 8),
    "raw that may not discard": ("raw", " discard='ignore'", (), 96),
    "raw without holes": ("raw", "", ("-o", "preallocation=falloc"), 96),
    "thin qcow2": ("qcow2", "", (), 8),
    "qcow2 as virt-install makes it": ("qcow2", "", ("-o", "preallocation=metadata"), 8),
}


@pytest.fixture
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("holes", "host1", memory_mib=192, dirty_mib_s=2, disks=("shared",))
    yield guest
    fleet.remove(guest)


def allocated_mib(fleet: Fleet, host: str, path: str) -> int:
    return int(fleet.lab.hosts[host].run(["stat", "-c", "%b", path]).stdout) * 512 // MIB


@pytest.mark.parametrize("kind", KINDS)
def test_holes_stay_holes(fleet: Fleet, guest: Guest, kind: str) -> None:
    form, more, options, expected = KINDS[kind]
    path = f"{INSTANCES}/{guest.uuid}/second.img"
    first = fleet.lab.hosts["host1"]
    first.run(["mkdir", "-p", f"{INSTANCES}/{guest.uuid}"])
    first.run(["qemu-img", "create", "-q", "-f", form, *options, path, "96M"])
    first.run(["qemu-io", "-f", form, "-c", WRITTEN, path])
    first.run(["sh", "-c", "cat >/run/disk.xml"], stdin=DISK.format(form=form, more=more, path=path))
    first.virsh("attach-device", guest.name, "/run/disk.xml", "--live", "--config")
    for to in ("host2", "host1"):
        assert plan(fleet, guest.name, to) == []
        migration = fleet.started(guest.name, to)
        assert fleet.wait(migration)["status"] == "completed"
        fleet.wait_closed(migration)
        assert expected <= allocated_mib(fleet, to, path) <= expected + 1
    inactive = etree.fromstring(first.virsh("dumpxml", guest.name, "--inactive"))
    (driver,) = inactive.findall("devices/disk/target[@dev='vdz']/../driver")
    assert (driver.get("discard") or "") == (more.split("'")[1] if more else "")
    first.virsh("destroy", guest.name)
    seen = first.run(["qemu-io", "-r", "-f", form, "-c", "read -P 7 16M 8M", "-c", "read -P 0 24M 72M", path])
    assert "verification failed" not in seen.stdout
