"""Telling the network where a guest is, from the host's side: one RARP, sent through the guest's own port.

QEMU tells it, too (first after its `announce-initial`, 50 ms by default); until the network knows, frames for the
guest go to its old host. What this gains has not been measured yet (docs/benchmarks.md). Called by `ovs.py`.
"""

from __future__ import annotations

from pathlib import Path

from sterna.adapters.native.command import run
from sterna.domain.errors import Permanent

_LIMIT_S = 5.0
"""It takes some 10 ms."""
_BROADCAST = b"\xff" * 6
_SHORTEST = 60
"""Bytes of an Ethernet frame without its checksum."""


def rarp(mac: str) -> bytes:
    """A reverse ARP request as the guest's own NIC would send it (RFC 903): who has it learns from its sender."""
    own = bytes.fromhex(mac.replace(":", ""))
    asked = bytes.fromhex("0001 0800 06 04 0003") + own + bytes(4) + own + bytes(4)
    return (_BROADCAST + own + bytes.fromhex("8035") + asked).ljust(_SHORTEST, b"\0")


async def send_as(ovsdb: str, bridge: str, ofport: int, frame: bytes) -> None:
    """Hand the switch a frame as if it had come in through that port. Raises Temporary, Permanent."""
    socket = Path(ovsdb.removeprefix("unix:")).with_name(f"{bridge}.mgmt")
    switch = f"unix:{socket}" if ovsdb.startswith("unix:") else bridge
    done = await run(
        ["ovs-ofctl", "packet-out", switch, f"in_port={ofport},packet={frame.hex()},actions=NORMAL"],
        limit_s=_LIMIT_S,
    )
    if done.code != 0:
        raise Permanent(f"Open vSwitch does not send through port {ofport} of {bridge}: {done.words}")
