"""Devices that stay on their host: how each is called, and what an operator can do about it. Pure."""

from __future__ import annotations

from typing import Final

from sterna.domain.model import Refusal

WITH_STANDBY: Final = "with a standby NIC (libvirt sets no MAC on a <hostdev>)"
"""A PCI device of a <teaming>. libvirt and QEMU migrate such a guest: QEMU takes the device away, and gives the
guest the one of the same address on the destination. That is the standby's pair only if it has the MAC, which
another program has to set (libvirt's release notes, 7.1): Sterna can neither choose nor prepare such a device."""
SHARED_MEMORY: Final = "shared memory device"
MASTER: Final = "(role='master': its content would be copied, who shares it would not)"
"""QEMU copies it (its manual, "Migration with ivshmem"). Other VMs and programs of the source go on with their own
copy, as with a disk that is shared and local. Nobody removes the memory (/dev/shm): it may be another program's."""
INVTSC: Final = "CPU feature invtsc without the frequency of its clock"

_FIXES: Final = (
    (
        WITH_STANDBY,
        "describe it as <interface type='hostdev'> with the same MAC and <teaming>, which is moved; or detach it "
        "for the move (virsh detach-device --live), while the guest goes on with its standby",
    ),
    (
        SHARED_MEMORY,
        "detach it for the move (virsh detach-device --live), and attach it again where those are that share it",
    ),
    (INVTSC, "set that frequency (<timer name='tsc' frequency='...'/>), or take the feature out"),
)
_DETACH: Final = "detach it first"


def refusal(what: str) -> Refusal:
    """Why `what` keeps a VM on its host."""
    fix = next((fix for words, fix in _FIXES if words in what), _DETACH)
    return Refusal(code="device-immovable", message=f"{what} cannot move", fix=fix)
