"""The ways a NIC can be plugged into its host, and what each of them means for a move. Pure.

One frozen `PlugType` per way, in one registry: all other code asks for a property, and compares no names.
docs/reference/plug-types.md has the same as a table: what happens at P10, F4 and R6 of the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sterna.domain.bindings import Binding
from sterna.domain.copying import DestinationNic
from sterna.domain.model import DEFAULT_PLUG, Data, Nic, Refusal
from sterna.domain.refusals import Code


class Joins(StrEnum):
    """What a NIC is a part of on its host."""

    OPEN_VSWITCH = "Open vSwitch"
    """Its port is one of a switch, which a network agent may have to wire."""
    LINUX_BRIDGE = "Linux bridge"
    PARENT = "parent"
    """It hangs on one of the host's own devices, and libvirt makes it with the guest."""
    FUNCTION = "function"
    """It is one of the host's own devices."""
    NOTHING = "nothing"
    """Sterna does not know."""


# The names, for the code that plugs them and for tests; nothing else uses them (tests/shape/test_plug_types.py).
OVS: Final = DEFAULT_PLUG
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


@dataclass(frozen=True)
class PlugType:
    """One way to plug a NIC. `name` is what journals, metadata and `Nic.plug` say."""

    name: str
    joins: Joins
    needs: tuple[str, ...] = ()
    """What must be known of a NIC before a host can plug it: fields of `Nic`, in the order they are asked for."""
    made_ahead: bool = False
    """Its tap is made ahead of the guest (P10), and outlives it."""
    keeps_bridge: bool = False
    """It puts a bridge of its own between tap and switch, which libvirt needs to start the guest again. Its one
    port is on the switch, whatever taps hang on that bridge."""
    hot_unplugged: bool = False
    """QEMU cannot copy it: it is taken from the guest for the copy (before M1) and given to it again on its new
    host (F6). Its standby NIC has the same MAC, so that a MAC alone does not name it."""
    claims: Callable[[Nic], str | None] = lambda nic: None
    """The device of the host that such a NIC has for itself: no other migration may choose it."""
    bound: Callable[[Binding], Data | None] = lambda binding: None
    """The fields of a NIC that a network service's binding has plugged so; None for another plug type."""
    against: Callable[[Nic], Refusal] | None = None
    """Why no host could be given such a NIC; None where one can."""


PASSTHROUGH: Final = "passthrough"
"""The macvtap mode in which the guest has the parent for itself."""
_INTEGRATION_BRIDGE = "br-int"
"""What an ML2/OVS or OVN binding means that names no bridge (before Neutron 13)."""


def _bound_to_switch(*, hybrid: bool) -> Callable[[Binding], Data | None]:
    def bound(binding: Binding) -> Data | None:
        details = binding.vif_details
        if binding.vif_type != "ovs" or bool(details.get("ovs_hybrid_plug")) is not hybrid:
            return None
        return {"bridge": details.get("bridge_name") or _INTEGRATION_BRIDGE}

    return bound


def _bound_to_bridge(binding: Binding) -> Data | None:
    bridge = binding.vif_details.get("bridge_name")
    return {"bridge": bridge} if binding.vif_type == "bridge" and bridge else None


def _bound_to_parent(binding: Binding) -> Data | None:
    details = binding.vif_details
    if binding.vif_type != "macvtap" or not details.get("macvtap_source"):
        return None
    return {"bridge": None, "parent": details["macvtap_source"], "mode": details.get("macvtap_mode") or "bridge"}


def _served_by_a_socket(nic: Nic) -> Refusal:
    message = (
        f"NIC {nic.mac} is plugged as vhost-user ({nic.device or 'a socket'}): the switch of the destination "
        "would have to serve that socket before the guest is there, which Sterna does not ask it for"
    )
    fix = "plug it as a tap (Open vSwitch normal plug), or detach it for the migration"
    return Refusal(code="nic-vhostuser", message=message, fix=fix)


PLUG_TYPES: Final = (
    PlugType(
        OVS,
        Joins.OPEN_VSWITCH,
        needs=("bridge", "port_id"),
        made_ahead=True,
        bound=_bound_to_switch(hybrid=False),
    ),
    PlugType(
        HYBRID,
        Joins.OPEN_VSWITCH,
        needs=("bridge", "port_id"),
        made_ahead=True,
        keeps_bridge=True,
        bound=_bound_to_switch(hybrid=True),
    ),
    PlugType(BRIDGE, Joins.LINUX_BRIDGE, needs=("bridge",), made_ahead=True, bound=_bound_to_bridge),
    PlugType(
        MACVTAP,
        Joins.PARENT,
        needs=("parent",),
        claims=lambda nic: nic.parent if nic.mode == PASSTHROUGH else None,
        bound=_bound_to_parent,
    ),
    PlugType(HOSTDEV, Joins.FUNCTION, needs=("physical_network",), hot_unplugged=True, claims=lambda nic: nic.pci),
    PlugType(VHOSTUSER, Joins.NOTHING, against=_served_by_a_socket),
)
_BY_NAME: Final = {each.name: each for each in PLUG_TYPES}


OTHERS_TAP: Final = "a tap that another program made"
"""How the plug type of such a NIC ends."""


def _unsupported(nic: Nic) -> Refusal:
    if nic.plug.endswith(OTHERS_TAP):
        message = (
            f"the tap of NIC {nic.mac}, {nic.device or 'without a name'}, was made by another program of its host "
            "(managed='no'), which would have to make one on the destination, too"
        )
        fix = "have that program move the VM (Nova and KubeVirt can), or put the NIC on a bridge or a macvtap"
        return Refusal(code="nic-unsupported", message=message, fix=fix)
    if nic.plug.startswith(_NETWORK):
        name = nic.plug.removeprefix(_NETWORK)
        message = f"NIC {nic.mac} is on {name}, a network of its host's libvirt"
        return Refusal(code="nic-unsupported", message=message, fix=_NOT_PRIVATE)
    message = f"NIC {nic.mac}: plug type {nic.plug!r} is not supported"
    fix = "detach it, or put it on an Open vSwitch bridge, a Linux bridge or a macvtap"
    return Refusal(code="nic-unsupported", message=message, fix=fix)


_OTHER: Final = PlugType("", Joins.NOTHING, against=_unsupported)
"""Whatever else the XML says, in words."""


def plug_type(of: Nic | DestinationNic | str) -> PlugType:
    """That of a NIC, or of this name."""
    return _BY_NAME.get(of if isinstance(of, str) else of.plug, _OTHER)


def is_supported(of: Nic | DestinationNic | str) -> bool:
    """Can a host be given such a NIC?"""
    return plug_type(of).against is None


_NAME = 11
"""Characters of a port id that fit into a device's name, as Nova cuts it."""


def tap_name(nic: Nic) -> str:
    """The tap's device name, as Nova names it: `tap` and the port id's first 11 characters; without a port id all
    12 digits of its MAC, which just fit."""
    return f"tap{nic.port_id[:_NAME]}" if nic.port_id else f"tap{nic.mac.replace(':', '').lower()}"


_GENERATED = ("vnet", "macvtap", "macvlan")
"""What libvirt's own names of devices begin with. It takes them for generated names, and drops them."""


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
    own work (`ovn-installed`, `ovn-installed-ts`), which is not done yet on the other host."""
    return {key: value for key, value in nic.external_ids.items() if not key.startswith(OVN_INSTALLED)}


def is_wired_by_agent(seen: Nic | None, sign: str = "") -> bool:
    """Has the host's network agent wired the port? `seen`: the NIC as its switch has it.

    An Open vSwitch agent gives the port the local VLAN of its network; OVN's controller says so in the interface's
    external_ids. What needs no agent is wired. `sign`: the one key of them that counts; '': whatever there is.
    """
    if seen is None:
        return False
    if plug_type(seen).joins is not Joins.OPEN_VSWITCH:
        return True
    if sign:
        return seen.external_ids.get(sign) == "true"
    return seen.vlan not in (None, _DEAD_VLAN) or seen.external_ids.get(OVN_INSTALLED) == "true"


def claimed(nic: Nic) -> str | None:
    """The device of the host that this NIC has for itself: no other migration may choose it."""
    return plug_type(nic).claims(nic)


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


def _private(nic: Nic, code: Code) -> Refusal:
    message = f"NIC {nic.mac} is on {nic.bridge}, a bridge of a libvirt network: such a network is its host's own"
    return Refusal(code=code, message=message, fix=_NOT_PRIVATE)


def _is_private(nic: Nic) -> bool:
    """Is its bridge named as libvirt names those of its NAT, routed and isolated networks (`virbr0`)?

    Most hosts have a virbr0, so that the destination having one proves nothing. A network with
    `<forward mode='bridge'/>` names a bridge of the operator's.
    """
    number = (nic.bridge or "").removeprefix(LIBVIRTS_BRIDGE)
    return plug_type(nic).joins is Joins.LINUX_BRIDGE and number != nic.bridge and number.isdecimal()


def no_bridge(nic: Nic) -> Refusal:
    """The destination has no such bridge of the NIC's plug type."""
    bridge = nic.bridge or ""
    joins = plug_type(nic).joins
    if joins is Joins.OPEN_VSWITCH and bridge.startswith(TRUNK_BRIDGE):
        message = f"NIC {nic.mac} is a trunk's parent, on a bridge of its own ({bridge}): that is not moved yet"
        fix = "delete the trunk in Neutron, migrate the VM, and create it again"
        return Refusal(code="trunk-parent", message=message, fix=fix)
    if joins is Joins.LINUX_BRIDGE and bridge.startswith(LIBVIRTS_BRIDGE):
        return _private(nic, "bridge-missing")
    kind, fix = ("Linux", f"ip link add {bridge} type bridge")
    if joins is Joins.OPEN_VSWITCH:
        kind, fix = ("Open vSwitch", f"ovs-vsctl add-br {bridge}")
    return Refusal(code="bridge-missing", message=f"there is no {kind} bridge {bridge} (NIC {nic.mac})", fix=fix)


def refusals(nic: Nic) -> list[Refusal]:
    """Why no host could be given this NIC, as far as its description says; empty for one that can move."""
    against = plug_type(nic).against
    if against is not None:
        return [against(nic)]
    return [_private(nic, "nic-unsupported")] if _is_private(nic) else []


def twins(nics: Sequence[Nic]) -> list[Refusal]:
    """NICs of one VM with the same MAC: each is found by its MAC, so one would be taken for the other. A virtual
    function and its standby are meant to share one."""
    found = Counter((nic.mac.lower(), plug_type(nic).hot_unplugged) for nic in nics)
    return [
        Refusal(
            code="nic-mac-twice",
            message=f"{count} NICs have the MAC {mac}: one would be plugged as the other",
            fix="change the MAC address of one of them (virsh edit), and start the VM again",
        )
        for (mac, _), count in found.items()
        if count > 1
    ]


def vm_of(external_ids: Mapping[str, str]) -> str:
    """Whose port it is: os-vif and Sterna write `vm-uuid`, libvirt `vm-id`. '' where there is neither."""
    return external_ids.get("vm-uuid") or external_ids.get("vm-id") or ""


def of_vm(nic: Nic, vm_uuid: str) -> Nic:
    """The NIC as this VM's, whatever its description says: whose a port is must not be another host's word."""
    marks = {"vm-uuid": vm_uuid} | ({"vm-id": vm_uuid} if "vm-id" in nic.external_ids else {})
    return nic.model_copy(update={"external_ids": nic.external_ids | marks})


def differs(nic: Nic, external_ids: Mapping[str, str]) -> str:
    """Which marks show that a port is another NIC's, in words; '' where none does."""
    if (port_id := external_ids.get("iface-id")) != nic.port_id:
        return f"iface-id {port_id or 'unset'}"
    vm, own = vm_of(external_ids), vm_of(nic.external_ids)
    return f"of VM {vm or 'unknown'}" if own and vm != own else ""


def is_own(nic: Nic, mac: str, marks: Mapping[str, str]) -> bool:
    """Is a device with the name of the NIC's tap this NIC's? `mac`: of the guest behind it, '' where that is
    unknown; `marks`: its external_ids."""
    port_id, vm, own = marks.get("iface-id"), vm_of(marks), vm_of(nic.external_ids)
    if vm and own and vm != own:
        return False
    return port_id == nic.port_id if port_id and nic.port_id else mac.lower() == nic.mac.lower()


def between_taken(nic: Nic, device: str, what: str) -> Refusal:
    """The same of a device of the hybrid plug. It is named after the port, and cannot be given another name."""
    message = f"NIC {nic.mac} is to have a device {device}, and there is {what} already"
    fix = f"find out whose {device} is there, and remove it if nobody's"
    return Refusal(code="device-name-taken", message=message, fix=fix)


def name_taken(nic: Nic, what: str) -> Refusal:
    """The destination has a device or port of the name that the NIC's tap is to have. `what` it is."""
    device = device_name(nic)
    message = f"the tap of NIC {nic.mac} is to be called {device}, and there is {what} already"
    fix = (
        f"find out whose {device} is there, and remove it if nobody's; or give the NIC another <target dev='...'/>"
    )
    return Refusal(code="device-name-taken", message=message, fix=fix)


def _bridge_unknown(nic: Nic) -> Refusal:
    message = f"the bridge of NIC {nic.mac} is unknown"
    return Refusal(code="nic-bridge-unknown", message=message, fix="add its tap to a bridge")


def _port_unknown(nic: Nic) -> Refusal:
    message = f"NIC {nic.mac} has no port id"
    fix = "set external_ids:iface-id on its Open vSwitch interface"
    return Refusal(code="nic-port-unknown", message=message, fix=fix)


def _parent_unknown(nic: Nic) -> Refusal:
    message = f"the parent device of NIC {nic.mac} is unknown"
    return Refusal(code="nic-parent-unknown", message=message, fix="name it: <source dev='...'/>")


def _network_unknown(nic: Nic) -> Refusal:
    message = f"nothing says which physical network {nic.pci}, the virtual function of NIC {nic.mac}, is on"
    fix = "name the network's devices on its host: [network] physical_networks"
    return Refusal(code="nic-network-unknown", message=message, fix=fix)


_UNKNOWN: Final = {
    "bridge": _bridge_unknown,
    "port_id": _port_unknown,
    "parent": _parent_unknown,
    "physical_network": _network_unknown,
}


def unknowns(nic: Nic) -> list[Refusal]:
    """What must be known of a NIC of a supported type before a host can plug it, and is not."""
    return [_UNKNOWN[field](nic) for field in plug_type(nic).needs if not getattr(nic, field)]


def not_plugged(nic: Nic) -> Refusal:
    """The host of a running guest has no device of this NIC where its definition plugs it."""
    where = nic.bridge or nic.parent or "any bridge"
    device = nic.device or "its device"
    message = f"NIC {nic.mac} is not plugged into {where} on its host: {device} with its MAC is not found there"
    fix = f"add {device} to {where} again, or detach the NIC"
    if plug_type(nic).joins is Joins.PARENT:
        fix = "detach the NIC, and attach it again if the guest needs it"
    elif plug_type(nic).joins is Joins.OPEN_VSWITCH:
        fix += "; if it is there, see [network] ovsdb of the agent, and external_ids:attached-mac of the port"
    return Refusal(code="nic-not-plugged", message=message, fix=fix)
