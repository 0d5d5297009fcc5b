"""`LibvirtHypervisor`: one host's libvirt as `ports.hypervisor.Hypervisor`."""

from __future__ import annotations

from sterna.adapters.libvirt.devices import LibvirtDevices
from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.keyring import LibvirtKeyring
from sterna.adapters.libvirt.lifecycle import LibvirtLifecycle
from sterna.adapters.libvirt.mover import LibvirtMover
from sterna.adapters.libvirt.session.host import HostSettings

__all__ = ["HostSettings", "LibvirtHypervisor"]


class LibvirtHypervisor(LibvirtInventory, LibvirtMover, LibvirtLifecycle, LibvirtDevices, LibvirtKeyring):
    """The five parts on one set of connections.

    `LibvirtHypervisor("qemu:///system", HostSettings(name="host1", address="10.0.0.1"))`; connects when first
    asked, reconnects by itself, `close()` ends its threads. libvirtd is never started or stopped by it.
    """
