"""No file is lost: what another domain names, or the other host sees, is never removed (docs/files.md).

All files of both hosts are listed before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lxml import etree

from conftest import Fleet
from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED

pytestmark = pytest.mark.lab

IDLE = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>{head}<devices>{devices}</devices></domain>"""
DISK = "<disk type='file' device='disk'><driver type='{form}'/><source file='{path}'/><target dev='vda'/></disk>"
PLACES = (INSTANCES, SHARED, "/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/swtpm", "/srv/sterna/other")


def listing(fleet: Fleet) -> dict[str, list[str]]:
    """Every file that matters on each host, by path."""
    command = f"find {' '.join(PLACES)} ! -type d 2>/dev/null | sort"
    return {name: host.run(["sh", "-c", command]).stdout.split() for name, host in fleet.lab.hosts.items()}


def define(
    fleet: Fleet, host: str, *, how: str = "define", name: str = "other", head: str = "", devices: str
) -> None:
    """Another domain; `how`: `define` (inactive), or `create` (transient and running)."""
    xml = IDLE.format(name=name, head=head, devices=devices)
    fleet.lab.hosts[host].run(["sh", "-c", "cat >/run/other.xml"], stdin=xml)
    more = ("--paused",) if how == "create" else ()
    fleet.lab.hosts[host].virsh(how, "/run/other.xml", *more)


def forget(fleet: Fleet, host: str, name: str = "other") -> None:
    for command in ("destroy", "undefine"):
        fleet.lab.hosts[host].virsh(command, name, check=False)


def plan(fleet: Fleet, vm: str, to: str = "host2") -> list[dict]:
    """The refusals of a plan; the same that a start gets, and each with a fix."""
    answer = fleet.api.post("/v1/plans", json={"vm": vm, "destination": to})
    assert answer.status_code == 200, answer.text
    reasons = answer.json()["blockers"]
    assert all(reason["message"] and reason["fix"] for reason in reasons), reasons
    return reasons


def refused(fleet: Fleet, vm: str, to: str = "host2") -> list[dict]:
    """Every reason why a start is refused."""
    answer = fleet.start(vm, to)
    assert answer.status_code == 422, answer.text
    reasons = answer.json()["reasons"]
    assert all(reason["message"] and reason["fix"] for reason in reasons), reasons
    return reasons


def codes(fleet: Fleet, vm: str, to: str = "host2") -> set[str]:
    return {reason["code"] for reason in refused(fleet, vm, to)}


def redefine(fleet: Fleet, guest: Guest, host: str, edit: Callable[[etree._Element], None]) -> None:
    """Start the guest anew from an edited definition."""
    there = fleet.lab.hosts[host]
    xml = etree.fromstring(there.virsh("dumpxml", guest.name, "--inactive"))
    edit(xml)
    there.run(["sh", "-c", "cat >/run/edited.xml"], stdin=etree.tostring(xml, encoding="unicode"))
    there.virsh("define", "/run/edited.xml")
    there.virsh("destroy", guest.name)
    there.virsh("start", guest.name)
    guest.status(timeout=60)


@pytest.fixture(scope="module")
def staying(fleet: Fleet) -> Iterator[Guest]:
    """A guest on host1 with a local disk, for tests that do not move it."""
    guest = fleet.lab.create_vm("stays", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), calm=True)
    yield guest
    fleet.remove(guest)


@pytest.fixture
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest on host1 with a local disk."""
    guest = fleet.lab.create_vm("mine", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), calm=True)
    yield guest
    fleet.remove(guest)


def disk_of(guest: Guest) -> str:
    return f"{INSTANCES}/{guest.uuid}/disk.qcow2"


# ------------------------------------------------------------ a: somebody else uses it


def by_its_name(fleet: Fleet, path: str) -> dict[str, str]:
    return {"devices": DISK.format(form="qcow2", path=path)}


def by_another_spelling(fleet: Fleet, path: str) -> dict[str, str]:
    return {"devices": DISK.format(form="qcow2", path=path.replace("/instances/", "/instances/../instances/"))}


def by_a_symbolic_link(fleet: Fleet, path: str) -> dict[str, str]:
    fleet.lab.hosts["host1"].run(["ln", "-s", path, "/srv/sterna/other/link"])
    return {"devices": DISK.format(form="qcow2", path="/srv/sterna/other/link")}


def by_a_hard_link(fleet: Fleet, path: str) -> dict[str, str]:
    fleet.lab.hosts["host1"].run(["ln", path, f"{INSTANCES}/link"])
    return {"devices": DISK.format(form="qcow2", path=f"{INSTANCES}/link")}


def by_a_bind_mount(fleet: Fleet, path: str) -> dict[str, str]:
    fleet.lab.hosts["host1"].run(["mount", "--bind", path.rpartition("/")[0], "/srv/sterna/other/mnt"])
    return {"devices": DISK.format(form="qcow2", path="/srv/sterna/other/mnt/disk.qcow2")}


def as_a_backing_file(fleet: Fleet, path: str) -> dict[str, str]:
    """Two images away, named by no definition."""
    middle, top = "/srv/sterna/other/middle.qcow2", "/srv/sterna/other/top.qcow2"
    for image, base in ((middle, path), (top, "middle.qcow2")):
        argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", image, "1G"]
        fleet.lab.hosts["host1"].run(argv)
    return {"devices": DISK.format(form="qcow2", path=top)}


def as_a_floppy(fleet: Fleet, path: str) -> dict[str, str]:
    device = f"<disk type='file' device='cdrom'><source file='{path}'/><target dev='sda' bus='sata'/></disk>"
    return {"devices": device}


def by_a_live_definition_only(fleet: Fleet, path: str) -> dict[str, str]:
    entry = f"<sysinfo type='fwcfg'><entry name='opt/other' file='{path}'/></sysinfo>"
    return {"head": entry, "devices": "", "how": "create"}


WAYS = [
    by_its_name,
    by_another_spelling,
    by_a_symbolic_link,
    by_a_hard_link,
    by_a_bind_mount,
    as_a_backing_file,
    as_a_floppy,
    by_a_live_definition_only,
]


@contextmanager
def other_folder(fleet: Fleet) -> Iterator[None]:
    """A folder of host1 alone."""
    host = fleet.lab.hosts["host1"]
    host.run(["mkdir", "-p", "/srv/sterna/other/mnt"])
    try:
        yield
    finally:
        host.run(["umount", "/srv/sterna/other/mnt"], check=False)
        host.run(["rm", "-rf", "/srv/sterna/other", f"{INSTANCES}/link"])


@pytest.mark.parametrize("way", WAYS)
def test_a_local_disk_that_another_domain_uses_is_refused(fleet: Fleet, staying: Guest, way) -> None:
    with other_folder(fleet):
        define(fleet, "host1", **way(fleet, disk_of(staying)))
        before = listing(fleet)
        try:
            (reason,) = refused(fleet, staying.name)
            assert reason["code"] == "disk-in-use"
            assert "other" in reason["message"] and disk_of(staying) in reason["message"]
        finally:
            forget(fleet, "host1")
        assert listing(fleet) == before


def test_the_plan_says_so_too(fleet: Fleet, staying: Guest) -> None:
    assert plan(fleet, staying.name) == []
    define(fleet, "host1", **by_its_name(fleet, disk_of(staying)))
    try:
        assert [reason["code"] for reason in plan(fleet, staying.name)] == ["disk-in-use"]
    finally:
        forget(fleet, "host1")


def test_a_path_that_a_domain_of_the_destination_names_is_refused(fleet: Fleet, staying: Guest) -> None:
    define(fleet, "host2", devices=DISK.format(form="qcow2", path=disk_of(staying)))
    try:
        assert codes(fleet, staying.name) == {"disk-in-use"}
    finally:
        forget(fleet, "host2")


def test_a_disk_that_somebody_begins_to_use_during_the_copy_is_kept(fleet: Fleet, guest: Guest) -> None:
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=16 << 20)
    fleet.wait_for_row("host1", "copy-started", migration)
    with other_folder(fleet):
        define(fleet, "host1", **as_a_backing_file(fleet, disk_of(guest)))
        try:
            ended = fleet.wait(migration)
            fleet.wait_closed(migration)
            assert ended["status"] == "completed"
            assert disk_of(guest) in str(ended["reason"]) and "other" in str(ended["reason"])
            files = listing(fleet)
            assert disk_of(guest) in files["host1"] and disk_of(guest) in files["host2"]
            assert fleet.lab.hosts_running(guest.name) == ["host2"]
        finally:
            forget(fleet, "host1")
            fleet.lab.hosts["host1"].run(["rm", "-rf", f"{INSTANCES}/{guest.uuid}"])


# ------------------------------------------------------------ b: firmware and TPM state

BIOS = "/usr/share/seabios/bios-256k.bin"
NVRAM_DIR = "/var/lib/libvirt/qemu/nvram"


def with_nvram(path: str, form: str = "text") -> Callable[[etree._Element], None]:
    def edit(xml: etree._Element) -> None:
        os = xml.find("os")
        loader = etree.Element("loader", {"readonly": "yes", "type": "pflash"})
        loader.text = BIOS
        nvram = etree.Element("nvram", {} if form == "text" else {"type": "file"})
        if form == "text":
            nvram.text = path
        else:
            etree.SubElement(nvram, "source", {"file": path})
        os.insert(1, loader)
        os.insert(2, nvram)

    return edit


@contextmanager
def shared_nvram_folder(fleet: Fleet) -> Iterator[None]:
    """libvirt's own folder for NVRAM is on storage both hosts see."""
    for host in fleet.lab.hosts.values():
        host.run(["mkdir", "-p", f"{SHARED}/nvram", NVRAM_DIR])
        host.run(["mount", "--bind", f"{SHARED}/nvram", NVRAM_DIR])
    try:
        yield
    finally:
        for host in fleet.lab.hosts.values():
            host.run(["umount", NVRAM_DIR])
        host.run(["rm", "-rf", f"{SHARED}/nvram"])


def make_nvram(fleet: Fleet, path: str) -> None:
    fleet.lab.hosts["host1"].run(["mkdir", "-p", path.rpartition("/")[0]])
    fleet.lab.hosts["host1"].run(["sh", "-c", f"yes guests own settings | head -c 131072 >{path}"])


@pytest.mark.parametrize("form", ["text", "file"])
def test_nvram_that_both_hosts_see_stays(fleet: Fleet, guest: Guest, form: str) -> None:
    path = f"{NVRAM_DIR}/mine_VARS.fd"
    with shared_nvram_folder(fleet):
        make_nvram(fleet, path)
        redefine(fleet, guest, "host1", with_nvram(path, form))
        try:
            for to in ("host2", "host1"):
                assert fleet.wait(fleet.started(guest.name, to))["status"] == "completed"
                files = listing(fleet)
                assert path in files["host1"] and path in files["host2"]
            content = fleet.lab.hosts["host1"].run(["head", "-c", "19", path]).stdout
            assert content == "guests own settings"
        finally:
            for host in fleet.lab.hosts.values():
                host.virsh("destroy", guest.name, check=False)
                host.virsh("undefine", guest.name, "--keep-nvram", check=False)


def test_nvram_of_the_source_alone_goes_with_the_guest(fleet: Fleet, guest: Guest) -> None:
    path = f"{NVRAM_DIR}/mine_VARS.fd"
    make_nvram(fleet, path)
    redefine(fleet, guest, "host1", with_nvram(path))
    before = listing(fleet)
    try:
        assert fleet.wait(fleet.started(guest.name, "host2"))["status"] == "completed"
        files = listing(fleet)
        assert path not in files["host1"] and path in files["host2"]
        content = fleet.lab.hosts["host2"].run(["head", "-c", "19", path]).stdout
        assert content == "guests own settings"
        assert fleet.wait(fleet.started(guest.name, "host1"))["status"] == "completed"
        assert listing(fleet) == before
    finally:
        for host in fleet.lab.hosts.values():
            host.virsh("destroy", guest.name, check=False)
            host.virsh("undefine", guest.name, "--nvram", check=False)


def test_nvram_that_another_domain_uses_stays(fleet: Fleet, guest: Guest) -> None:
    path = f"{NVRAM_DIR}/mine_VARS.fd"
    make_nvram(fleet, path)
    redefine(fleet, guest, "host1", with_nvram(path))
    fwcfg = f"<sysinfo type='fwcfg'><entry name='opt/other' file='{path}'/></sysinfo>"
    define(fleet, "host1", head=fwcfg, devices="")
    try:
        assert fleet.wait(fleet.started(guest.name, "host2"))["status"] == "completed"
        assert path in listing(fleet)["host1"]
    finally:
        forget(fleet, "host1")
        for host in fleet.lab.hosts.values():
            host.virsh("destroy", guest.name, check=False)
            host.virsh("undefine", guest.name, "--nvram", check=False)
            host.run(["rm", "-f", path])


def test_a_local_disk_that_others_may_write_to_is_refused(fleet: Fleet, guest: Guest) -> None:
    redefine(fleet, guest, "host1", lambda xml: etree.SubElement(xml.find("devices/disk"), "shareable"))
    assert codes(fleet, guest.name) == {"disk-shareable"}
