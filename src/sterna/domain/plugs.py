"""The ways a NIC can be plugged into its host, and what each of them means for a move. Pure.

docs/reference/plug-types.md tells the same as a table: what happens at P10, F4 and R6 of the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sterna.domain.copying import DestinationNic
from sterna.domain.model import Nic, Refusal

OVS: Final = "ovs"
"""OVS normal plug: the guest's tap is a port of the integration bridge."""
HYBRID: Final = "ovs-hybrid"
"""OVS hybrid plug: tap - Linux bridge `qbr...` - veth `qvb...`/`qvo...` - integration bridge."""
BRIDGE: Final = "bridge"
"""The guest's tap is a port of a Linux bridge."""
MACVTAP: Final = "macvtap"
"""A device on top of one of the host's own NICs, made by libvirt with the guest."""
HOSTDEV: Final = "hostdev"
"""SR-IOV `direct`: a virtual function, taken from the guest for the copy and given to it again on its new host."""
VHOSTUSER: Final = "vhostuser"
"""A socket to a user-space switch: named, and refused."""

MADE_AHEAD: Final = frozenset({OVS, HYBRID, BRIDGE})
"""Their tap is made ahead of the guest (P10), and outlives it."""
SUPPORTED: Final = MADE_AHEAD | {MACVTAP, HOSTDEV}
PASSTHROUGH: Final = "passthrough"
"""The macvtap mode in which the guest has the parent for itself."""

_NAME = 11
"""Characters of a port id that fit into a device's name, as Nova cuts it."""


def tap_name(nic: Nic) -> str:
    """The tap's device name, as Nova names it: `tap` and the port id's first 11 characters; without a port id all
    12 digits of its MAC, which just fit."""
    return f"tap{nic.port_id[:_NAME]}" if nic.port_id else f"tap{nic.mac.replace(':', '').lower()}"


_GENERATED = ("vnet", "macvtap", "macvlan")
"""What libvirt's own names of devices begin with. It takes them for nobody's wish, and forgets them."""


def is_generated(device: str) -> bool:
    """Did libvirt choose this name, and would it choose another one at the next start?"""
    return device.startswith(_GENERATED)


def device_name(nic: Nic) -> str:
    """What the NIC's tap is to be called on its new host: as an operator named it, else `tap_name`."""
    return nic.device if nic.device and not is_generated(nic.device) else tap_name(nic)


def as_bound(nic: Nic) -> Nic:
    """The NIC as a network service has it on its new host: a binding knows no name an operator gave to the tap."""
    return nic.model_copy(update={"device": None})


def hybrid_names(port_id: str) -> tuple[str, str, str]:
    """Bridge, veth on the bridge, veth on the switch of a port's hybrid plug, as Nova names them."""
    return f"qbr{port_id[:_NAME]}", f"qvb{port_id[:_NAME]}", f"qvo{port_id[:_NAME]}"


_DEAD_VLAN = 4095
"""An Open vSwitch agent's tag for a port that must not forward."""
OVN_INSTALLED: Final = "ovn-installed"
"""In an interface's external_ids: OVN's controller has wired it on this host."""


def carried_ids(nic: Nic) -> dict[str, str]:
    """The external_ids of the NIC's port that go with it to another host: all but what its agent wrote there of its
    own work (`ovn-installed`, `ovn-installed-ts`), which on the other host nobody has done yet."""
    return {key: value for key, value in nic.external_ids.items() if not key.startswith(OVN_INSTALLED)}


def is_wired_by_agent(seen: Nic | None, sign: str = "") -> bool:
    """Has the host's network agent wired the port? `seen`: the NIC as its switch has it.

    An Open vSwitch agent gives the port the local VLAN of its network; OVN's controller says so in the interface's
    external_ids. What needs no agent is wired. `sign`: the one key of them that counts; '': whatever there is.
    """
    if seen is None:
        return False
    if seen.plug not in (OVS, HYBRID):
        return True
    if sign:
        return seen.external_ids.get(sign) == "true"
    return seen.vlan not in (None, _DEAD_VLAN) or seen.external_ids.get(OVN_INSTALLED) == "true"


def is_function(nic: Nic | DestinationNic) -> bool:
    """A virtual function? It has the MAC of its standby: a MAC alone does not name a NIC."""
    return nic.plug == HOSTDEV


def claimed(nic: Nic) -> str | None:
    """The device of the host that this NIC has for itself: no other migration may choose it."""
    if nic.plug == HOSTDEV:
        return nic.pci
    return nic.parent if nic.plug == MACVTAP and nic.mode == PASSTHROUGH else None


LIBVIRTS_BRIDGE: Final = "virbr"
"""What libvirt calls the bridges that it makes for its networks."""
_NETWORK = "other: network "
_NOT_PRIVATE = (
    "put the NIC on a bridge that leads both hosts into one network (<interface type='bridge'>, not virbr...). A "
    "NAT or isolated network of libvirt is each host's own, even where both have one of that name: there the guest "
    "would lose its connections and its neighbours"
)
TRUNK_BRIDGE: Final = "tbr-"
"""What Neutron's ML2/OVS calls the bridge that a trunk's parent has for itself."""


def no_bridge(nic: Nic) -> Refusal:
    """The destination has no such bridge of the NIC's plug type."""
    bridge = nic.bridge or ""
    if nic.plug in (OVS, HYBRID) and bridge.startswith(TRUNK_BRIDGE):
        message = f"NIC {nic.mac} is a trunk's parent, on a bridge of its own ({bridge}): that is not moved yet"
        fix = "delete the trunk in Neutron, move the VM, and make it again"
        return Refusal(code="trunk-parent", message=message, fix=fix)
    if nic.plug == BRIDGE and bridge.startswith(LIBVIRTS_BRIDGE):
        message = f"NIC {nic.mac} is on {bridge}, a bridge of a libvirt network: such a network is its host's own"
        return Refusal(code="bridge-missing", message=message, fix=_NOT_PRIVATE)
    kind, fix = ("Linux", f"ip link add {bridge} type bridge")
    if nic.plug != BRIDGE:
        kind, fix = ("Open vSwitch", f"ovs-vsctl add-br {bridge}")
    return Refusal(code="bridge-missing", message=f"there is no {kind} bridge {bridge} (NIC {nic.mac})", fix=fix)


def refusals(nic: Nic) -> list[Refusal]:
    """Why no host could be given this NIC, as far as its description says; empty for one that can move."""
    if nic.plug == VHOSTUSER:
        message = (
            f"NIC {nic.mac} is plugged as vhost-user ({nic.device or 'a socket'}): the switch of the destination "
            "would have to serve that socket before the guest is there, which Sterna does not ask it for"
        )
        fix = "plug it as a tap (Open vSwitch normal plug), or detach it for the move"
        return [Refusal(code="nic-vhostuser", message=message, fix=fix)]
    if nic.plug.startswith(_NETWORK):
        name = nic.plug.removeprefix(_NETWORK)
        message = f"NIC {nic.mac} is on {name}, a network of its host's libvirt"
        return [Refusal(code="nic-unsupported", message=message, fix=_NOT_PRIVATE)]
    if nic.plug not in SUPPORTED:
        message = f"NIC {nic.mac}: plug type {nic.plug!r} is not supported"
        fix = "detach it, or put it on an Open vSwitch bridge, a Linux bridge or a macvtap"
        return [Refusal(code="nic-unsupported", message=message, fix=fix)]
    return []


def twins(nics: Sequence[Nic]) -> list[Refusal]:
    """NICs of one VM with the same MAC: each is found by its MAC, so one would be taken for the other. A virtual
    function and its standby are meant to share one."""
    found = Counter((nic.mac.lower(), nic.plug == HOSTDEV) for nic in nics)
    return [
        Refusal(
            code="nic-mac-twice",
            message=f"{count} NICs have the MAC {mac}: one would be plugged as the other",
            fix="give all but one another MAC (virsh edit), and start the VM anew",
        )
        for (mac, _), count in found.items()
        if count > 1
    ]


def vm_of(external_ids: Mapping[str, str]) -> str:
    """Whose port it is: os-vif and Sterna write `vm-uuid`, libvirt `vm-id`. '' where nothing says so."""
    return external_ids.get("vm-uuid") or external_ids.get("vm-id") or ""


def differs(nic: Nic, external_ids: Mapping[str, str]) -> str:
    """How the marks of a port tell that it is another NIC's, in words; '' where they tell no such thing."""
    if (port_id := external_ids.get("iface-id")) != nic.port_id:
        return f"iface-id {port_id or 'unset'}"
    vm, own = vm_of(external_ids), vm_of(nic.external_ids)
    return f"of VM {vm or 'unknown'}" if own and vm != own else ""


def between_taken(nic: Nic, device: str, what: str) -> Refusal:
    """The same of a device of the hybrid plug. It is named after the port, and cannot be given another name."""
    message = f"NIC {nic.mac} is to have a device {device}, and there is {what} already"
    fix = f"see whose {device} is there, and remove it if nobody's"
    return Refusal(code="device-name-taken", message=message, fix=fix)


def name_taken(nic: Nic, what: str) -> Refusal:
    """The destination has a device or port of the name that the NIC's tap is to have. `what` it is."""
    device = device_name(nic)
    message = f"the tap of NIC {nic.mac} is to be called {device}, and there is {what} already"
    fix = f"see whose {device} is there, and remove it if nobody's; or give the NIC another <target dev='...'/>"
    return Refusal(code="device-name-taken", message=message, fix=fix)


def unknowns(nic: Nic) -> list[Refusal]:
    """What must be known of a NIC of a supported type before a host can plug it, and is not."""
    found = []
    if nic.plug == MACVTAP:
        if not nic.parent:
            message = f"nothing says which device NIC {nic.mac} hangs on"
            found.append(Refusal(code="nic-parent-unknown", message=message, fix="name it: <source dev='...'/>"))
        return found
    if nic.plug == HOSTDEV:
        if not nic.physical_network:
            message = f"nothing says which physical network {nic.pci}, the virtual function of NIC {nic.mac}, is on"
            fix = "name the network's devices on its host: [network] physical_networks"
            found.append(Refusal(code="nic-network-unknown", message=message, fix=fix))
        return found
    if not nic.bridge:
        message = f"nothing says which bridge NIC {nic.mac} belongs to"
        found.append(Refusal(code="nic-bridge-unknown", message=message, fix="add its tap to a bridge"))
    if nic.plug in (OVS, HYBRID) and not nic.port_id:
        message = f"NIC {nic.mac} has no port id"
        fix = "set external_ids:iface-id on its Open vSwitch interface"
        found.append(Refusal(code="nic-port-unknown", message=message, fix=fix))
    return found
