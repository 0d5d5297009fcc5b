"""Where the lab keeps things: the cache (survives `down`), and the fixed addresses and folders of a lab."""

import os
from pathlib import Path

LAB_ADDRESS = "10.73.0.1"
"""The lab's own address on the management network: bus, iSCSI portal."""
TENANT_ADDRESS = "10.74.0.1"
"""The lab's own address on the guests' network: where pings come from."""
NATS_URL = f"nats://{LAB_ADDRESS}:4222"
ISCSI_PORTAL_PORT = 3260
TENANT_VLAN = 100
FURTHER_NICS = {
    "ovs-hybrid": ("tenant", "10.77.0"),
    "bridge": ("lan", "10.75.0"),
    "macvtap": ("phys", "10.76.0"),
    "macvtap-passthrough": ("phys", "10.78.0"),
}
"""Kinds of NIC a guest may have besides its first, each with the lab's network it ends on and a subnet of its own;
the lab's own address there is number 1."""
GUEST_STATUS_PORT = 7000
IQN_PREFIX = "iqn.2026-11.lab.sterna"

SHARED = "/srv/sterna/shared"
INSTANCES = "/srv/sterna/instances"
STATE = "/srv/sterna/state"
TGT_SOCKET = "/srv/sterna/tgt/socket"
GUEST = "/srv/sterna/guest"
BUS_FOLDER = "/srv/sterna/bus"
"""Key and certificate of the bus, where its server runs."""
BUS_SETTINGS = "include bus.conf\n"
"""The first line of the server's configuration; fault tests add lines."""
IDENTITY = f"{STATE}/identity"
"""Key and certificate of a host, as the host sees them."""

SOURCE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Where what is dear to make again is kept: $STERNA_LAB_CACHE, or `.cache` of the checkout, or of the user."""
    if chosen := os.environ.get("STERNA_LAB_CACHE"):
        return Path(chosen).absolute()
    checkout = SOURCE.parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / ".cache"
    return Path.home() / ".cache" / "sterna"


def management_address(index: int) -> str:
    """The management address of the host number `index`, counted from 1."""
    return f"10.73.0.{10 + index}"


def initiator_name(host: str) -> str:
    """The iSCSI initiator name of a host."""
    return f"{IQN_PREFIX}:{host}"


def target_name(volume: str) -> str:
    """The iSCSI target name of a volume."""
    return f"{IQN_PREFIX}:{volume}"


def ipv6_address(address: str) -> str:
    """A host's address where a test gives it IPv6: `fd00:73::1` beside `10.73.0.11`."""
    return f"fd00:73::{int(address.rpartition('.')[2]) - 10}"


def second_address(address: str) -> str:
    """A host's further address, on a network of its own over the same link: `10.73.1.11` beside `10.73.0.11`."""
    first, second, _, last = address.split(".")
    return f"{first}.{second}.1.{last}"
