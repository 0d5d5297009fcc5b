"""The VLAN of a NIC on a Linux bridge: libvirt gives it to the bridge's port, where the bridge filters VLANs. Pure.

libvirt does so since 11.0 (its release notes). It switches the filter on for bridges of its own only. Without it
the kernel takes no notice of a port's VLAN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sterna.domain.capabilities import spoken
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import Joins, plug_type

SINCE: Final = 11_000_000
"""libvirt's version."""


def has_vlan(nic: Nic) -> bool:
    """Is it a NIC on a Linux bridge, in a VLAN of its own?"""
    return nic.vlan is not None and plug_type(nic).joins is Joins.LINUX_BRIDGE


def against_libvirt(nics: Iterable[Nic], there: HostFacts) -> Iterator[Refusal]:
    """The destination's libvirt must know how."""
    if there.libvirt_version >= SINCE:
        return
    for nic in filter(has_vlan, nics):
        message = (
            f"NIC {nic.mac} has VLAN {nic.vlan} on the Linux bridge {nic.bridge}, and libvirt "
            f"{spoken(there.libvirt_version)} on {there.name} sets VLANs on Open vSwitch bridges only"
        )
        yield Refusal(code="bridge-vlan", message=message, fix=f"install libvirt {spoken(SINCE)} or newer there")


def not_filtered(nic: Nic) -> Refusal:
    """The destination's bridge takes no notice of VLANs: the guest would be in another network."""
    message = f"NIC {nic.mac} has VLAN {nic.vlan}, and the Linux bridge {nic.bridge} does not filter VLANs"
    return Refusal(code="bridge-vlan", message=message, fix=_filter(nic))


def without_effect(nic: Nic, host: str) -> Refusal:
    """The same of the source's: the guest has no VLAN now, and might have one on the destination."""
    message = (
        f"NIC {nic.mac} has VLAN {nic.vlan} in its definition, without any effect: the Linux bridge {nic.bridge} "
        f"of {host} does not filter VLANs, and the destination's may"
    )
    return Refusal(code="bridge-vlan", message=message, fix=f"{_filter(nic)}; or take <vlan> out of the definition")


def _filter(nic: Nic) -> str:
    return f"ip link set {nic.bridge} type bridge vlan_filtering 1"
