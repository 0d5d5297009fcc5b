"""What a VM's image demands of the host it runs on. Pure; asked at the check and at P7.

Only what the running guest's own definition does not say already: its CPU, machine type, devices and memory are
compared by the hypervisors themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from operator import eq, ge, gt, le, lt, ne

from sterna.domain.capabilities import dotted
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Refusal

_COMPARE = {"==": eq, "=": eq, ">=": ge, "<=": le, ">": gt, "<": lt, "!=": ne}
_OURS = ("qemu", "kvm")
_BY_CPU = "HW_CPU_"
"""Traits that are features of the CPU: libvirt compares the guest's CPU with the host's."""


def unmet(properties: Mapping[str, str], host: HostFacts, traits: Collection[str]) -> list[Refusal]:
    """What the image wants and `host`, which has these `traits`, has not.

    Known: `img_hv_type`, `img_hv_requested_version` (and their old names `hypervisor_type`,
    `hypervisor_version_requires`) and `trait:NAME` = required | forbidden.
    """
    found = []
    kind = properties.get("img_hv_type") or properties.get("hypervisor_type")
    if kind and kind.lower() not in _OURS:
        message = f"the VM's image is for hypervisor {kind}; {host.name} has QEMU"
        found.append(
            Refusal(code="image-hypervisor", message=message, fix="correct the image's property img_hv_type")
        )
    wanted = properties.get("img_hv_requested_version") or properties.get("hypervisor_version_requires")
    if wanted and not _meets(host.qemu_version, wanted):
        has = dotted(host.qemu_version)
        message = f"the VM's image wants hypervisor version {wanted}; {host.name} has QEMU {has}"
        found.append(Refusal(code="image-hypervisor-version", message=message, fix="choose another host"))
    for name, value in sorted(properties.items()):
        trait = name.removeprefix("trait:")
        if trait == name or trait.startswith(_BY_CPU):
            continue
        if (value == "required") != (trait in traits) and value in ("required", "forbidden"):
            message = f"the VM's image says that trait {trait} is {value}"
            fix = f"choose another host, or correct `traits` in {host.name}'s agent settings"
            found.append(Refusal(code="image-trait", message=message, fix=fix))
    return found


def _meets(version: int, wanted: str) -> bool:
    """`>=6.0, <10`: all must hold. What cannot be read is not held against the host (Nova does likewise)."""
    for part in wanted.split(","):
        found = re.fullmatch(r"\s*(==|=|>=|<=|>|<|!=)?\s*(\d+)(?:\.(\d+))?(?:\.(\d+))?\s*", part)
        if found is None:
            continue
        major, minor, release = (int(n or 0) for n in found.groups()[1:])
        if not _COMPARE[found[1] or "=="](version, major * 1_000_000 + minor * 1000 + release):
            return False
    return True
