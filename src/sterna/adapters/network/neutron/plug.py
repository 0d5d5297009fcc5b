"""From a binding's vif_type and vif_details to how this host plugs the NIC (protocol P5). Pure."""

from __future__ import annotations

from sterna.domain.bindings import Binding
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import PLUG_TYPES, as_bound

_NO_SUCH_PLUG = {
    "vhostuser": "move it to a network whose hosts plug with kernel Open vSwitch, or detach it",
    "hw_veb": "detach the SR-IOV NIC first",
    "hostdev_physical": "detach the SR-IOV NIC first",
    "distributed": "detach it: this port belongs to a router",
}


def nic_for(
    nic: Nic, binding: Binding | None, host: str, *, mtu: int | None, addresses: tuple[str, ...] = ()
) -> Nic | Refusal:
    """The NIC as `host` must plug it, or why it cannot.

    The VLAN is never carried over: the tag of a port is its host's own number for the network, which that host's
    network agent sets.
    """
    if binding is None:
        message = f"port {nic.port_id} of NIC {nic.mac} has no binding on {host}"
        fix = f"check that the network agent on {host} is alive under that name (openstack network agent list)"
        return Refusal(code="nic-not-bound", message=message, fix=fix)
    found = as_bound(nic).model_copy(
        update={"vlan": None, "managed": True, "mtu": mtu or nic.mtu, "addresses": addresses}
    )
    for kind in PLUG_TYPES:
        if (fields := kind.bound(binding)) is not None:
            return found.model_copy(update={"plug": kind.name} | fields)
    if not binding.bound:
        message = f"port {nic.port_id} of NIC {nic.mac} could not be bound on {host}: {binding.vif_type}"
        fix = f"check that the network agent on {host} is alive and has the port's physical network"
        return Refusal(code="nic-not-bound", message=message, fix=fix)
    message = f"NIC {nic.mac} (port {nic.port_id}): Sterna cannot plug vif type {binding.vif_type} on {host}"
    fix = _NO_SUCH_PLUG.get(binding.vif_type, "detach it first")
    return Refusal(code="nic-unsupported", message=message, fix=fix)
