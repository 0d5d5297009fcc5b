"""Guests with disks of all sorts, other domains, and lists of all files: for the tests of what is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from sterna.lab.places import INSTANCES, SHARED
from tests.e2e.conftest import Fleet
from tests.narrowing import not_none

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


def plan(fleet: Fleet, vm: str, to: str = "host2") -> list[dict[str, Any]]:
    """The refusals of a plan; the same that a start gets, and each with a fix."""
    answer = fleet.api.post("/v1/plans", json={"vm": vm, "destination": to})
    assert answer.status_code == 200, answer.text
    reasons: list[dict[str, Any]] = answer.json()["blockers"]
    assert all(reason["message"] and reason["fix"] for reason in reasons), reasons
    return reasons


def refused(fleet: Fleet, vm: str, to: str = "host2") -> list[dict[str, Any]]:
    """Every reason why a start is refused."""
    answer = fleet.start(vm, to)
    assert answer.status_code == 422, answer.text
    reasons: list[dict[str, Any]] = answer.json()["reasons"]
    assert all(reason["message"] and reason["fix"] for reason in reasons), reasons
    return reasons


def codes(fleet: Fleet, vm: str, to: str = "host2") -> set[str]:
    return {reason["code"] for reason in refused(fleet, vm, to)}


def redefine(fleet: Fleet, guest: Guest, host: str, edit: Callable[[etree._Element], None]) -> None:
    """Start the guest again from an edited definition."""
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
    guest = fleet.lab.create_vm("stays", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), pace="calm")
    yield guest
    fleet.remove(guest)


@pytest.fixture
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest on host1 with a local disk."""
    guest = fleet.lab.create_vm("mine", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), pace="calm")
    yield guest
    fleet.remove(guest)


def disk_of(guest: Guest) -> str:
    return f"{INSTANCES}/{guest.uuid}/disk.qcow2"


def second_disk(path: str, form: str = "qcow2") -> Callable[[etree._Element], None]:
    def edit(xml: etree._Element) -> None:
        devices = not_none(xml.find("devices"))
        for old in devices.findall("disk/target[@dev='vdz']/.."):
            devices.remove(old)
        disk = f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{path}'/>"
        devices.append(etree.fromstring(f"{disk}<target dev='vdz' bus='virtio'/></disk>"))

    return edit


def image(fleet: Fleet, host: str, path: str, *options: str, form: str = "qcow2") -> str:
    fleet.lab.hosts[host].run(["qemu-img", "create", "-q", "-f", form, *options, path, "8M"])
    return path
