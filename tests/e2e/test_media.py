"""CDs, seed drives and config drives: what virsh moves is moved, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import listing, plan, redefine, refused
from tests.narrowing import not_none

pytestmark = pytest.mark.lab

LIBRARY = "/srv/sterna/isos"
SEED = 700 << 10


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest on host1 with a drive that is empty."""
    guest = fleet.lab.create_vm("media", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), pace="calm")

    def add(xml: etree._Element) -> None:
        drive = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"
        not_none(xml.find("devices")).append(etree.fromstring(drive))

    redefine(fleet, guest, "host1", add)
    yield guest
    fleet.remove(guest)


@pytest.fixture
def there(fleet: Fleet, guest: Guest) -> Iterator[None]:
    """Every test begins on host1 with an empty drive, and no library."""
    yield
    at = next(h for h in fleet.lab.hosts if guest.name in fleet.lab.hosts[h].virsh("list", "--name"))
    fleet.lab.hosts[at].virsh("change-media", guest.name, "sda", "--eject", "--live", "--config", check=False)
    if at == "host2":
        moved(fleet, guest, "host1")
    for host in fleet.lab.hosts.values():
        host.run(["sh", "-c", f"umount {LIBRARY} 2>/dev/null; rm -rf {LIBRARY}"], check=False)


def write(fleet: Fleet, host: str, path: str, what: str, *, size: int = SEED) -> None:
    script = f"mkdir -p $(dirname {path}); yes '{what}' | head -c {size} >{path}"
    fleet.lab.hosts[host].run(["sh", "-c", script])


def insert(fleet: Fleet, guest: Guest, path: str) -> None:
    fleet.lab.hosts["host1"].virsh("change-media", guest.name, "sda", path, "--insert", "--live", "--config")


def moved(fleet: Fleet, guest: Guest, to: str) -> None:
    assert plan(fleet, guest.name, to) == []
    migration = fleet.started(guest.name, to)
    ended = fleet.wait(migration)
    assert ended["status"] == "completed", ended
    fleet.wait_closed(migration)


def read_only_library(fleet: Fleet) -> str:
    """A folder of the shared storage, mounted read-only on both hosts; a file in it."""
    path = f"{SHARED}/library/debian.iso"
    write(fleet, "host1", path, "debian")
    for host in fleet.lab.hosts.values():
        script = f"mkdir -p {LIBRARY}; mount --bind {SHARED}/library {LIBRARY}; mount -o remount,bind,ro {LIBRARY}"
        host.run(["sh", "-c", script])
    return f"{LIBRARY}/debian.iso"


def test_an_empty_drive(fleet: Fleet, guest: Guest, there: None) -> None:
    moved(fleet, guest, "host2")


def test_an_iso_in_a_library_that_is_mounted_read_only(fleet: Fleet, guest: Guest, there: None) -> None:
    insert(fleet, guest, read_only_library(fleet))
    before = listing(fleet)
    moved(fleet, guest, "host2")
    moved(fleet, guest, "host1")
    assert listing(fleet) == before


def test_the_same_iso_on_disks_of_both_hosts(fleet: Fleet, guest: Guest, there: None) -> None:
    path = f"{LIBRARY}/debian.iso"
    for host in fleet.lab.hosts:
        write(fleet, host, path, "debian")
    insert(fleet, guest, path)
    moved(fleet, guest, "host2")
    for each in fleet.lab.hosts.values():
        assert each.run(["stat", "-c", "%s", path]).stdout.strip() == str(SEED)


@pytest.mark.parametrize("size", [SEED, SEED + 2048])
def test_another_iso_of_that_name(fleet: Fleet, guest: Guest, there: None, size: int) -> None:
    path = f"{LIBRARY}/debian.iso"
    write(fleet, "host1", path, "debian")
    write(fleet, "host2", path, "windows", size=size)
    insert(fleet, guest, path)
    assert [r["code"] for r in refused(fleet, guest.name)] == ["medium-differs"]


def test_an_iso_that_the_destination_lacks(fleet: Fleet, guest: Guest, there: None) -> None:
    path = f"{LIBRARY}/debian.iso"
    write(fleet, "host1", path, "debian")
    insert(fleet, guest, path)
    reasons = refused(fleet, guest.name)
    assert {r["code"] for r in reasons} == {"medium-missing"}
    assert all(path in r["fix"] for r in reasons)


def test_a_seed_drive_beside_the_disk_travels(fleet: Fleet, guest: Guest, there: None) -> None:
    path = f"{INSTANCES}/{guest.uuid}/seed.iso"
    write(fleet, "host1", path, "seed")
    fleet.lab.hosts["host1"].run(["chmod", "640", path])
    insert(fleet, guest, path)
    content = fleet.lab.hosts["host1"].run(["sha256sum", path]).stdout
    moved(fleet, guest, "host2")
    there_now = fleet.lab.hosts["host2"]
    assert there_now.run(["sha256sum", path]).stdout == content
    assert there_now.run(["stat", "-c", "%a", path]).stdout.strip() == "640"
    assert path not in listing(fleet)["host1"]
    assert path in there_now.virsh("dumpxml", guest.name, "--inactive")
    moved(fleet, guest, "host1")
    assert fleet.lab.hosts["host1"].run(["sha256sum", path]).stdout == content
    assert path not in listing(fleet)["host2"]
