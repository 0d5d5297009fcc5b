"""Every file that a disk stands on is the same on both hosts, or the move is refused (docs/reference/files.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import codes, disk_of, guest, image, listing, plan, redefine, refused, second_disk
from tests.narrowing import not_none

__all__ = ["guest"]
pytestmark = pytest.mark.lab

# ------------------------------------------------------------ c, d, f: what a disk stands on, and where it leads


@contextmanager
def images(fleet: Fleet) -> Iterator[None]:
    """Folders for images: one of each host alone, under one name."""
    for host in fleet.lab.hosts.values():
        host.run(["mkdir", "-p", "/srv/sterna/other"])
    try:
        yield
    finally:
        for host in fleet.lab.hosts.values():
            host.run(["sh", "-c", f"rm -rf /srv/sterna/other {SHARED}/t-*"])


OWN_BASE = "/srv/sterna/other/base.qcow2"


def base_of_the_source_alone(fleet: Fleet) -> str:
    image(fleet, "host1", OWN_BASE)
    return image(fleet, "host1", f"{SHARED}/t-top.qcow2", "-b", OWN_BASE, "-F", "qcow2")


def another_base_of_that_name_there(fleet: Fleet) -> str:
    image(fleet, "host2", OWN_BASE)
    return base_of_the_source_alone(fleet)


def a_base_two_below(fleet: Fleet) -> str:
    image(fleet, "host1", OWN_BASE)
    image(fleet, "host2", OWN_BASE)
    middle = image(fleet, "host1", f"{SHARED}/t-middle.qcow2", "-b", OWN_BASE, "-F", "qcow2")
    return image(fleet, "host1", f"{SHARED}/t-top.qcow2", "-b", middle, "-F", "qcow2")


def a_base_behind_a_link(fleet: Fleet) -> str:
    """A link on shared storage: each host follows it to a file of its own."""
    image(fleet, "host1", OWN_BASE)
    image(fleet, "host2", OWN_BASE)
    fleet.lab.hosts["host1"].run(["ln", "-s", OWN_BASE, f"{SHARED}/t-link.qcow2"])
    return image(fleet, "host1", f"{SHARED}/t-top.qcow2", "-b", f"{SHARED}/t-link.qcow2", "-F", "qcow2")


def a_local_overlay_on_a_shared_image_on_a_local_base(fleet: Fleet) -> str:
    image(fleet, "host1", OWN_BASE)
    middle = image(fleet, "host1", f"{SHARED}/t-middle.qcow2", "-b", OWN_BASE, "-F", "qcow2")
    return image(fleet, "host1", f"{INSTANCES}/t-top.qcow2", "-b", middle, "-F", "qcow2")


def shared_with_its_data_on_the_source(fleet: Fleet) -> str:
    return image(fleet, "host1", f"{SHARED}/t-top.qcow2", "-o", "data_file=/srv/sterna/other/data,data_file_raw=on")


@pytest.mark.parametrize(
    "make",
    [
        base_of_the_source_alone,
        another_base_of_that_name_there,
        a_base_two_below,
        a_base_behind_a_link,
        a_local_overlay_on_a_shared_image_on_a_local_base,
        shared_with_its_data_on_the_source,
    ],
)
def test_every_file_a_disk_stands_on_is_the_same_on_both_hosts_or_refused(
    fleet: Fleet, guest: Guest, make: Callable[[Fleet], str]
) -> None:
    with images(fleet):
        redefine(fleet, guest, "host1", second_disk(make(fleet)))
        before = listing(fleet)
        assert codes(fleet, guest.name) == {"disk-backing-file"}
        assert listing(fleet) == before
        fleet.lab.hosts["host1"].virsh("destroy", guest.name)
        fleet.lab.hosts["host1"].run(["rm", "-f", f"{INSTANCES}/t-top.qcow2"])


def test_a_chain_that_both_hosts_see_moves(fleet: Fleet, guest: Guest) -> None:
    with images(fleet):
        base = image(fleet, "host1", f"{SHARED}/t-base.raw", form="raw")
        middle = image(fleet, "host1", f"{SHARED}/t-middle.qcow2", "-b", base, "-F", "raw")
        data = f"data_file={SHARED}/t-data,data_file_raw=off"
        top = image(fleet, "host1", f"{SHARED}/t-top.qcow2", "-b", middle, "-F", "qcow2", "-o", data)
        redefine(fleet, guest, "host1", second_disk(top))
        files = {f for f in listing(fleet)["host1"] if f.startswith(SHARED)}
        assert fleet.wait(fleet.started(guest.name, "host2"))["status"] == "completed"
        assert files <= set(listing(fleet)["host2"])
        fleet.lab.hosts["host2"].virsh("destroy", guest.name)


@pytest.mark.parametrize("raw", ["on", "off"])
def test_a_local_image_with_its_data_in_another_file_is_refused(fleet: Fleet, guest: Guest, raw: str) -> None:
    folder = f"{INSTANCES}/{guest.uuid}"
    options = f"data_file={folder}/data,data_file_raw={raw}"
    redefine(fleet, guest, "host1", second_disk(image(fleet, "host1", f"{folder}/top.qcow2", "-o", options)))
    before = listing(fleet)
    assert codes(fleet, guest.name) == {"disk-data-file"}
    assert listing(fleet) == before


def test_a_local_image_with_snapshots_that_libvirt_does_not_know_is_refused(fleet: Fleet, guest: Guest) -> None:
    host1 = fleet.lab.hosts["host1"]
    host1.virsh("destroy", guest.name)
    host1.run(["qemu-img", "snapshot", "-c", "before", disk_of(guest)])
    host1.virsh("start", guest.name)
    guest.status(timeout=60)
    assert host1.virsh("snapshot-list", guest.name, "--name").strip() == ""
    before = listing(fleet)
    (why,) = refused(fleet, guest.name)
    assert why["code"] == "disk-snapshots" and f"qemu-img snapshot -d NAME {disk_of(guest)}" in why["fix"]
    assert listing(fleet) == before
    host1.virsh("destroy", guest.name)
    host1.run(["qemu-img", "snapshot", "-d", "before", disk_of(guest)])
    host1.virsh("start", guest.name)
    guest.status(timeout=60)
    assert plan(fleet, guest.name) == []


def written_by_an_argument(path: str) -> Callable[[etree._Element], None]:
    def edit(xml: etree._Element) -> None:
        space = "http://libvirt.org/schemas/domain/qemu/1.0"
        for old in xml.findall(f"{{{space}}}commandline"):
            xml.remove(old)
        line = etree.SubElement(xml, f"{{{space}}}commandline")
        device = "virtio-blk-pci,drive=extra,bus=pcie.0,addr=0x1d"
        for value in ("-drive", f"file={path},format=raw,if=none,id=extra", "-device", device):
            etree.SubElement(line, f"{{{space}}}arg", {"value": value})

    return edit


def test_a_disk_in_qemus_own_arguments_is_refused_but_where_both_hosts_see_it(fleet: Fleet, guest: Guest) -> None:
    """A copy of it that somebody makes on the destination would miss what the guest writes until it leaves."""
    with images(fleet):
        own = image(fleet, "host1", "/srv/sterna/other/t-raw", form="raw")
        redefine(fleet, guest, "host1", written_by_an_argument(own))
        assert {why["code"] for why in plan(fleet, guest.name)} == {"argument-disk"}
        image(fleet, "host2", own, form="raw")  # of the same content, for now
        assert codes(fleet, guest.name) == {"argument-disk"}
        redefine(
            fleet, guest, "host1", written_by_an_argument(image(fleet, "host1", f"{SHARED}/t-raw", form="raw"))
        )
        before = listing(fleet)
        assert plan(fleet, guest.name) == []
        assert listing(fleet) == before
        assert fleet.wait(fleet.started(guest.name, "host2"))["status"] == "completed"
        fleet.lab.hosts["host2"].virsh("destroy", guest.name)


def test_a_slice_of_a_local_file_is_refused(fleet: Fleet, guest: Guest) -> None:
    path = image(fleet, "host1", f"{INSTANCES}/{guest.uuid}/whole.raw", form="raw")

    def sliced(xml: etree._Element) -> None:
        second_disk(path, "raw")(xml)
        source = not_none(xml.find("devices/disk/target[@dev='vdz']/../source"))
        part = etree.SubElement(etree.SubElement(source, "slices"), "slice")
        part.attrib.update({"type": "storage", "offset": "1048576", "size": "4194304"})

    redefine(fleet, guest, "host1", sliced)
    assert {why["code"] for why in plan(fleet, guest.name)} == {"disk-not-copyable"}
    assert codes(fleet, guest.name) == {"disk-not-copyable"}


def test_a_disk_behind_a_link_to_shared_storage_is_shared_where_both_hosts_have_the_link(
    fleet: Fleet, guest: Guest
) -> None:
    link = f"{INSTANCES}/t-link.qcow2"
    with images(fleet):
        real = image(fleet, "host1", f"{SHARED}/t-real.qcow2")
        try:
            fleet.lab.hosts["host1"].run(["ln", "-s", real, link])
            redefine(fleet, guest, "host1", second_disk(link))
            before = listing(fleet)
            assert codes(fleet, guest.name) == {"disk-behind-link"}
            assert listing(fleet) == before
            fleet.lab.hosts["host2"].run(["ln", "-s", real, link])
            migration = fleet.started(guest.name, "host2")
            assert fleet.wait(migration)["status"] == "completed"
            fleet.wait_closed(migration)
            files = listing(fleet)
            assert link in files["host1"] and link in files["host2"] and real in files["host1"]
            fleet.lab.hosts["host2"].virsh("destroy", guest.name)
        finally:
            for host in fleet.lab.hosts.values():
                host.run(["rm", "-f", link])


def test_a_file_with_another_one_mounted_over_it_is_not_the_same(fleet: Fleet, guest: Guest) -> None:
    host1 = fleet.lab.hosts["host1"]
    with images(fleet):
        path = image(fleet, "host1", f"{SHARED}/t-disk.qcow2")
        host1.run(["mount", "--bind", image(fleet, "host1", OWN_BASE), path])
        try:
            redefine(fleet, guest, "host1", second_disk(path))
            assert codes(fleet, guest.name) == {"disk-not-the-same"}
        finally:
            host1.virsh("destroy", guest.name)
            host1.run(["umount", path])


# ------------------------------------------------------------ e: in the persistent definition only


def only_persistent(fleet: Fleet, guest: Guest, device: str) -> None:
    host = fleet.lab.hosts["host1"]
    xml = etree.fromstring(host.virsh("dumpxml", guest.name, "--inactive"))
    not_none(xml.find("devices")).append(etree.fromstring(device))
    host.run(["sh", "-c", "cat >/run/edited.xml"], stdin=etree.tostring(xml, encoding="unicode"))
    host.virsh("define", "/run/edited.xml")


DEVICE = "<disk type='file' device='{kind}'><driver type='raw'/><source file='{path}'{more}/>{target}</disk>"
VDZ, SDA = "<target dev='vdz' bus='virtio'/>", "<target dev='sda' bus='sata'/>"


@pytest.mark.parametrize(("kind", "target", "word"), [("disk", VDZ, "detach-disk"), ("cdrom", SDA, "change-media")])
def test_a_local_file_that_only_the_persistent_definition_names_is_refused(
    fleet: Fleet, guest: Guest, kind: str, target: str, word: str
) -> None:
    path = image(fleet, "host1", f"{INSTANCES}/{guest.uuid}/second.img", form="raw")
    only_persistent(fleet, guest, DEVICE.format(kind=kind, path=path, target=target, more=""))
    (reason,) = refused(fleet, guest.name)
    assert reason["code"] == "disk-only-persistent"
    assert path in reason["message"] and word in reason["fix"]


@pytest.mark.parametrize("more", ["shared", "missing", "optional"])
def test_it_is_harmless_where_a_cold_start_needs_nothing_of_the_source(
    fleet: Fleet, guest: Guest, more: str
) -> None:
    with images(fleet):
        path = f"{SHARED}/t-second.img" if more == "shared" else f"{INSTANCES}/t-second.img"
        if more != "missing":
            image(fleet, "host1", path, form="raw")
        policy = " startupPolicy='optional'" if more == "optional" else ""
        kind, target = ("cdrom", SDA) if more == "optional" else ("disk", VDZ)
        only_persistent(fleet, guest, DEVICE.format(kind=kind, path=path, target=target, more=policy))
        assert fleet.wait(fleet.started(guest.name, "host2"))["status"] == "completed"
        fleet.lab.hosts["host2"].virsh("destroy", guest.name)
        fleet.lab.hosts["host1"].run(["rm", "-f", f"{INSTANCES}/t-second.img"])
