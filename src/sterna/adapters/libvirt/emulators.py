"""Which programs may be a guest's QEMU here: those that libvirt itself has found, as its capabilities name them.

libvirt runs an emulator to learn what it can do, wherever one is named to it: in a definition, or in a question
about CPUs. Both come from another host. So libvirt is asked about no emulator that it does not
name itself.
"""

from __future__ import annotations

import os

from sterna.adapters.host import looks
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.errors import Permanent
from sterna.domain.model import Refusal
from sterna.kit.mounts import on_disk


async def target_of(emulator: str) -> str:
    """Where this path leads to: distributions have several names for one QEMU. Raises Temporary where the file
    system does not answer."""
    if not emulator:
        return ""
    return await on_disk(lambda: os.path.realpath(emulator), emulator, limit_s=looks.LOOK_S)


def is_known(emulator: str, target: str, capabilities: str) -> bool:
    """Does libvirt name this emulator, or one that is the same file? '' is libvirt's own choice. `target`: where it
    leads to."""
    named = {found.text or "" for found in parse_xml(capabilities).iter("emulator")} - {""}
    return not emulator or emulator in named or target in {os.path.realpath(name) for name in named}


def of_definition(xml: str) -> str:
    """The emulator that a definition names, as libvirt reads it; '' where it names none. Raises Permanent where it
    is no XML, or names several."""
    found = [str(node.xpath("string()")) for node in parse_xml(xml).iterfind("devices/emulator")]
    if len(found) > 1:
        raise Permanent("the domain's definition names several emulators, which libvirt never does")
    return found[0] if found else ""


def unknown(emulator: str) -> Refusal:
    """libvirt here would be led to run something else."""
    message = f"libvirt on this host knows no emulator {emulator}"
    fix = "install the same QEMU package; or name one that `virsh capabilities` shows here (virsh edit)"
    return Refusal(code="emulator-missing", message=message, fix=fix)
