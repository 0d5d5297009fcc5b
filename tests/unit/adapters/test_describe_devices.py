"""Devices of a domain XML that cannot move: each with its reason and its remedy."""

import pytest

from sterna.adapters.libvirt.xml.describe import describe
from sterna.domain.immovable import refusal

HOSTDEV = """<hostdev mode='subsystem' type='pci'><source>
  <address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source></hostdev>"""
VIRTIOFS = (
    """<filesystem type='mount'><driver type='virtiofs'/><source dir='/data'/><target dir='tag'/></filesystem>"""
)


def small(devices: str = "") -> str:
    """A domain with little in it."""
    return (
        "<domain type='kvm'><name>a</name><uuid>u</uuid><memory unit='MiB'>1</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{devices}</devices></domain>"
    )


def test_devices_that_cannot_move_are_named() -> None:
    vm = describe(small(HOSTDEV + VIRTIOFS + "<shmem name='ivshmem'/>"))
    assert vm.immovable == ("hostdev 0000:01:00.1", "virtiofs share /data", "shared memory device ivshmem")


TEAMED = HOSTDEV.replace("</hostdev>", "<teaming type='transient' persistent='ua-s'/></hostdev>")
USB = "<hostdev type='usb'><source><vendor id='0x046d'/><product id='0xc077'/></source></hostdev>"


@pytest.mark.parametrize(
    ("device", "message", "fix"),
    [
        (TEAMED, "hostdev 0000:01:00.1 with a standby NIC", "<interface type='hostdev'>"),
        (HOSTDEV, "hostdev 0000:01:00.1 cannot move", "detach it first"),
        ("<shmem name='s' role='master'/>", "s (role='master'", "those are that share it"),
        ("<shmem name='s' role='peer'/>", "shared memory device s cannot move", "those are that share it"),
        (USB, "hostdev usb 0x046d:0xc077 cannot move", "detach it first"),
    ],
)
def test_each_device_that_cannot_move_has_its_reason_and_its_remedy(device: str, message: str, fix: str) -> None:
    (what,) = describe(small(device)).immovable
    refused = refusal(what)
    assert refused.code == "device-immovable"
    assert message in refused.message and fix in refused.fix


INVTSC = "<cpu mode='host-passthrough'><feature policy='require' name='invtsc'/></cpu>"


@pytest.mark.parametrize(
    ("clock", "moves"),
    [
        ("", False),
        ("<clock offset='utc'><timer name='tsc' mode='native'/></clock>", False),
        ("<clock offset='utc'><timer name='hpet' frequency='2593905000'/></clock>", False),
        ("<clock offset='utc'><timer name='tsc' frequency='0'/></clock>", False),
        ("<clock offset='utc'><timer name='tsc' frequency='2593905000'/></clock>", True),
    ],
)
def test_invtsc_moves_only_with_the_frequency_of_its_clock(clock: str, moves: bool) -> None:
    vm = describe(small().replace("<devices>", f"{INVTSC}{clock}<devices>"))
    assert (vm.immovable == ()) is moves
    assert moves or "invtsc" in vm.immovable[0]
