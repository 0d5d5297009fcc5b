"""No file is lost: what another domain names, or the other host sees, is never removed (docs/reference/files.md).

All files of both hosts are listed before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import DISK, codes, define, disk_of, forget, guest, listing, plan, redefine, refused, staying
from tests.narrowing import not_none

__all__ = ["guest", "staying"]
pytestmark = pytest.mark.lab


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
def test_a_local_disk_that_another_domain_uses_is_refused(
    fleet: Fleet, staying: Guest, way: Callable[[Fleet, str], dict[str, Any]]
) -> None:
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


def test_a_disk_that_a_domain_of_the_destination_uses_under_another_path_is_refused(
    fleet: Fleet, staying: Guest
) -> None:
    """The source's folder is mounted on the destination, elsewhere."""
    host1, host2 = (fleet.lab.hosts[name] for name in ("host1", "host2"))
    mount = "/srv/sterna/other/mnt"
    host2.run(["mkdir", "-p", mount])
    host2.run(["mount", "--bind", str((host1.root / "instances").absolute()), mount])
    top, base = "/srv/sterna/other/top.qcow2", f"{mount}/{staying.uuid}/disk.qcow2"
    try:
        host2.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", top, "1G"])
        define(fleet, "host2", devices=DISK.format(form="qcow2", path=top))
        (reason,) = refused(fleet, staying.name)
        assert reason["code"] == "disk-in-use" and "host2" in reason["message"]
    finally:
        forget(fleet, "host2")
        host2.run(["umount", mount])
        host2.run(["rm", "-rf", "/srv/sterna/other"])


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
TEMPLATE = "/usr/share/seabios/bios.bin"
"""As large as the NVRAM: the destination's libvirt makes its own of it, before the guest's settings arrive."""
NVRAM_DIR = "/var/lib/libvirt/qemu/nvram"


def with_nvram(path: str, form: str = "text") -> Callable[[etree._Element], None]:
    def edit(xml: etree._Element) -> None:
        os = not_none(xml.find("os"))
        loader = etree.Element("loader", {"readonly": "yes", "type": "pflash"})
        loader.text = BIOS
        nvram = etree.Element("nvram", {"template": TEMPLATE} | ({} if form == "text" else {"type": "file"}))
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
    path = f"{INSTANCES}/{guest.uuid}/second.img"
    fleet.lab.hosts["host1"].run(["qemu-img", "create", "-q", "-f", "raw", path, "8M"])
    text = f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{path}'/>"
    disk = etree.fromstring(f"{text}<target dev='vdz' bus='virtio'/><shareable/></disk>")
    redefine(fleet, guest, "host1", lambda xml: not_none(xml.find("devices")).append(disk))
    assert codes(fleet, guest.name) == {"disk-shareable"}


def with_tpm(xml: etree._Element) -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    not_none(xml.find("devices")).append(etree.fromstring(tpm))


def test_the_state_of_a_tpm_goes_with_the_guest_where_only_the_source_sees_it(fleet: Fleet, guest: Guest) -> None:
    """Shared, it cannot be tried here: Debian 12's swtpm does not lock it as libvirt wants."""
    folder = f"/var/lib/libvirt/swtpm/{guest.uuid}"
    redefine(fleet, guest, "host1", with_tpm)

    def state(host: str) -> list[str]:
        return [path for path in listing(fleet)[host] if path.startswith(folder) and not path.endswith(".lock")]

    before = state("host1")
    assert before
    for here, there in (("host1", "host2"), ("host2", "host1")):
        assert fleet.wait(fleet.started(guest.name, there))["status"] == "completed"
        assert (state(here), state(there)) == ([], before)


# ------------------------------------------------------------ a file that another one has taken the place of


def test_a_disk_that_was_restored_under_its_running_guest_is_refused_and_both_are_kept(
    fleet: Fleet, guest: Guest
) -> None:
    host1, disk = fleet.lab.hosts["host1"], disk_of(guest)
    saved = disk.replace("disk.qcow2", "saved.qcow2")
    assert plan(fleet, guest.name) == []
    host1.run(["sh", "-c", f"cp {disk} {disk}.new && mv {disk}.new {disk}"])
    before = listing(fleet)
    (why,) = refused(fleet, guest.name)
    assert why["code"] == "file-replaced" and disk in why["message"]
    assert listing(fleet) == before
    command = why["fix"].partition("virsh ")[2].replace("FILE", saved)
    host1.virsh(*command.split())
    assert saved in listing(fleet)["host1"]
    host1.virsh("destroy", guest.name)
    host1.virsh("start", guest.name)
    guest.status(timeout=60)
    assert plan(fleet, guest.name) == []
    host1.run(["rm", "-f", saved])


# ------------------------------------------------------------ another VM's state on the destination


def test_nvram_of_a_vm_of_the_destination_that_is_off_is_not_overwritten(fleet: Fleet, guest: Guest) -> None:
    path = f"{NVRAM_DIR}/mine_VARS.fd"
    make_nvram(fleet, path)
    redefine(fleet, guest, "host1", with_nvram(path))
    try:
        assert plan(fleet, guest.name) == []
        define(fleet, "host2", head="<features><acpi/></features>", devices="")
        there = fleet.lab.hosts["host2"]
        xml = etree.fromstring(there.virsh("dumpxml", "other", "--inactive"))
        with_nvram(path)(xml)
        there.run(["sh", "-c", "cat >/run/other.xml"], stdin=etree.tostring(xml, encoding="unicode"))
        there.virsh("define", "/run/other.xml")
        (why,) = refused(fleet, guest.name)
        assert why["code"] == "path-taken" and path in why["message"] and "other" in why["message"]
    finally:
        forget(fleet, "host2")
        fleet.lab.hosts["host2"].virsh("undefine", "other", "--keep-nvram", check=False)
        fleet.lab.hosts["host1"].virsh("destroy", guest.name, check=False)
        fleet.lab.hosts["host1"].virsh("undefine", guest.name, "--nvram", check=False)
        fleet.lab.hosts["host1"].run(["rm", "-f", path])


# ------------------------------------------------------------ a volume on the network


def test_a_lun_that_another_domain_names_is_not_taken_from_it(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm(
        "lun", "host1", memory_mib=192, dirty_mib_s=2, disks=("local", "iscsi"), pace="calm"
    )
    try:
        xml = etree.fromstring(fleet.lab.hosts["host1"].virsh("dumpxml", guest.name, "--inactive"))
        source = not_none(xml.find("devices/disk/source[@protocol='iscsi']"))
        same = etree.tostring(source, encoding="unicode")
        rescue = f"<disk type='network'><driver type='raw'/>{same}<target dev='vda'/></disk>"
        for host in ("host1", "host2"):
            define(fleet, host, name="rescue", devices=rescue)
            (why,) = refused(fleet, guest.name)
            assert why["code"] == "volume-shared" and host in why["message"] and "rescue" in why["message"]
            forget(fleet, host, "rescue")
        assert plan(fleet, guest.name) == []
    finally:
        fleet.remove(guest)
