"""Storage that both hosts see and libvirt takes for each host's own: refused in the plan, until it is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sterna.lab import sabotage
from sterna.lab.host import LabHost
from sterna.lab.places import SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import codes, image, plan, redefine, second_disk

pytestmark = pytest.mark.lab

FOLDER = "/srv/sterna/both"
CONF = "/etc/libvirt/qemu.conf"


@contextmanager
def seen_by_both(fleet: Fleet) -> Iterator[None]:
    """A folder of the lab's, on both hosts, that no setting names."""
    store = fleet.lab.state_dir / "both"
    store.mkdir()
    try:
        for host in fleet.lab.hosts.values():
            host.run(["mkdir", FOLDER])
            host.run(["mount", "--bind", str(store), FOLDER])
        yield
    finally:
        for host in fleet.lab.hosts.values():
            host.run(["sh", "-c", f"umount {FOLDER}; rmdir {FOLDER}"], check=False)
        for path in store.iterdir():
            path.unlink()
        store.rmdir()


def set_folders(fleet: Fleet, host: LabHost, folders: str) -> None:
    """In `qemu.conf`, which libvirtd reads when it starts."""
    line = f"s|^shared_filesystems.*|shared_filesystems = [ {folders} ]|"
    host.run(["sed", "-i", line, CONF])
    sabotage.kill_libvirtd(fleet.lab, host.name)
    sabotage.start_libvirtd(fleet.lab, host.name)
    fleet.eventually(lambda: host.virsh("uri", check=False) != "")


def test_storage_that_libvirt_takes_for_local(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("shares", "host1", memory_mib=192, dirty_mib_s=2, disks=("shared",), pace="calm")
    host1, host2 = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    with seen_by_both(fleet):
        try:
            redefine(fleet, guest, "host1", second_disk(image(fleet, "host1", f"{FOLDER}/second.qcow2")))
            (reason,) = plan(fleet, guest.name)
            assert reason["code"] == "folder-not-known-as-shared" and "shared_filesystems" in reason["fix"]
            assert codes(fleet, guest.name) == {"folder-not-known-as-shared"}
            uris = (host2.peer_uri, f"tcp://{host2.address}")
            by_virsh = host1.run(["virsh", "-q", "migrate", "--live", "--p2p", guest.name, *uris], check=False)
            assert "Unsafe migration" in by_virsh.stderr

            for host in (host1, host2):
                set_folders(fleet, host, f'"{SHARED}", "{FOLDER}"')
            fleet.lab.wait_ready()
            fleet.eventually(lambda: plan(fleet, guest.name) == [])
            for to in ("host2", "host1"):
                assert fleet.wait(fleet.started(guest.name, to))["status"] == "completed"
                assert fleet.lab.hosts_running(guest.name) == [to]
                assert guest.status(timeout=60).clean
        finally:
            fleet.remove(guest)
            for host in (host1, host2):
                set_folders(fleet, host, f'"{SHARED}"')
            fleet.lab.wait_ready()
