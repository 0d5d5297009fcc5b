"""`/servers/ID/diagnostics`: what its host says of it now. What it reads, writes and sends is not counted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, rule
from sterna.domain.compute.policies import Rule
from sterna.domain.compute.statuses import diagnosed
from sterna.domain.model import Vm

router = APIRouter(prefix="/v2.1/servers/{server}/diagnostics")
KIB, MIB = 2**10, 2**20
_DISK = ("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count")
_NIC = ("rx_octets", "rx_errors", "rx_drop", "rx_packets", "rx_rate",
        "tx_octets", "tx_errors", "tx_drop", "tx_packets", "tx_rate")  # fmt: skip


@router.get("", dependencies=[rule(Rule.DIAGNOSTICS)])
async def show(server: str, call: Asking) -> dict[str, Any]:
    """From 2.48 on in Nova's form, with null for what is not counted; before, each driver has a form of its own."""
    found = await call.server(server, Rule.DIAGNOSTICS)
    details = await call.controller.inventory.details(found.vm)
    if details is None:
        raise HTTPException(503, f"The host of server {server} does not answer: try again.")
    return _view(details) if call.has(48) else {"memory": details.memory_bytes // KIB, "vcpus": details.vcpus}


def _view(vm: Vm) -> dict[str, Any]:
    return {
        "state": diagnosed(vm),
        "driver": "libvirt",
        "hypervisor": vm.virt_type,
        "hypervisor_os": "linux",
        "uptime": None,
        "config_drive": False,
        "num_cpus": vm.vcpus,
        "num_nics": len(vm.nics),
        "num_disks": len(vm.disks),
        "cpu_details": [],
        "disk_details": [dict.fromkeys(_DISK) for _ in vm.disks],
        "nic_details": [{"mac_address": nic.mac} | dict.fromkeys(_NIC) for nic in vm.nics],
        "memory_details": {"maximum": vm.memory_bytes // MIB, "used": None},
    }
