"""`/os-hypervisors` and `/os-hosts`: the hosts, with what they have and what is used of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, made_id, made_number, rule
from sterna.api.compute.reading import boolean, check_query, page
from sterna.api.compute.services import service_id, state_of, status_of
from sterna.controller.records.registry import Host
from sterna.domain.compute.policies import Rule
from sterna.domain.model import GuestState
from sterna.ports.fleet import VmRecord

router = APIRouter(prefix="/v2.1")
_RULE = [rule(Rule.HYPERVISORS)]
MIB, GIB = 2**20, 2**30
TYPE = "QEMU"
_SUMS = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb",
         "free_disk_gb", "current_workload", "running_vms", "disk_available_least")  # fmt: skip


def hypervisor_id(call: Call, host: str) -> str | int:
    """As this version has it."""
    return made_id("hypervisor", host) if call.has(53) else made_number("hypervisor", host)


class _Fleet:
    """All hosts, and the VMs on each; one that runs on two hosts is on both."""

    def __init__(self, hosts: list[Host], vms: list[VmRecord]) -> None:
        self.hosts = hosts
        self.vms: defaultdict[str, list[VmRecord]] = defaultdict(list)
        for vm in vms:
            for host in (vm.host, *vm.also):
                self.vms[host].append(vm)


async def _fleet(call: Call) -> _Fleet:
    return _Fleet(await call.controller.registry.hosts(), await call.setup.servers.vms())


@router.get("/os-hypervisors", dependencies=_RULE)
async def list_hypervisors(call: Asking, request: Request) -> dict[str, Any]:
    """Names and states."""
    return await _listed(call, request, detail=False)


@router.get("/os-hypervisors/detail", dependencies=_RULE)
async def list_details(call: Asking, request: Request) -> dict[str, Any]:
    """With everything."""
    return await _listed(call, request, detail=True)


@router.get("/os-hypervisors/statistics", dependencies=_RULE)
async def statistics(call: Asking) -> dict[str, Any]:
    """Of all hosts together."""
    call.needs_version(1, below=88)
    fleet = await _fleet(call)
    all_of = [_resources(host, fleet.vms[host.name]) for host in fleet.hosts]
    return {"hypervisor_statistics": {"count": len(all_of)} | {k: sum(one[k] for one in all_of) for k in _SUMS}}


@router.get("/os-hypervisors/{hypervisor}", dependencies=_RULE)
async def show_hypervisor(hypervisor: str, call: Asking, request: Request) -> dict[str, Any]:
    """By ID. A name is 400 from 2.53 on, and 404 before: clients look it up in the list then."""
    fleet = await _fleet(call)
    host = _called(call, fleet, hypervisor)
    seen = _detailed(call, host, fleet.vms[host.name])
    if call.has(53) and boolean(request.query_params.get("with_servers", "false"), "with_servers"):
        seen |= _servers(call, fleet.vms[host.name])
    return {"hypervisor": seen}


@router.get("/os-hypervisors/{hypervisor}/uptime", dependencies=_RULE)
async def uptime(hypervisor: str, call: Asking) -> None:
    """Not known: clients go on without it."""
    call.needs_version(1, below=88)
    _called(call, await _fleet(call), hypervisor)
    raise HTTPException(501, "Sterna does not know how long its hosts have been up.")


@router.get("/os-hypervisors/{pattern}/search", dependencies=_RULE)
async def search(pattern: str, call: Asking) -> dict[str, Any]:
    """Before 2.53: those whose names contain this."""
    call.needs_version(1, below=53)
    return {"hypervisors": [_brief(call, host) for host in _matching(await _fleet(call), pattern)]}


@router.get("/os-hypervisors/{pattern}/servers", dependencies=_RULE)
async def servers(pattern: str, call: Asking) -> dict[str, Any]:
    """Before 2.53: the same, with what is on them."""
    call.needs_version(1, below=53)
    fleet = await _fleet(call)
    found = [_brief(call, host) | _servers(call, fleet.vms[host.name]) for host in _matching(fleet, pattern)]
    return {"hypervisors": found}


async def _listed(call: Call, request: Request, *, detail: bool) -> dict[str, Any]:
    query = request.query_params
    if call.has(75):
        check_query(query, ("limit", "marker", "hypervisor_hostname_pattern", "with_servers"))
    fleet = await _fleet(call)
    pattern = query.get("hypervisor_hostname_pattern") if call.has(53) else None
    hosts = fleet.hosts if pattern is None else _matching(fleet, pattern)
    links: Any = None
    if call.has(33):
        hosts, links = page(
            call,
            request,
            hosts,
            "os-hypervisors/detail" if detail else "os-hypervisors",
            [str(hypervisor_id(call, host.name)) for host in hosts],
        )
    found = []
    for host in hosts:
        seen = _detailed(call, host, fleet.vms[host.name]) if detail else _brief(call, host)
        if call.has(53) and boolean(query.get("with_servers", "false"), "with_servers"):
            seen |= _servers(call, fleet.vms[host.name])
        found.append(seen)
    return {"hypervisors": found} | ({} if links is None else {"hypervisors_links": links})


def _matching(fleet: _Fleet, pattern: str) -> list[Host]:
    found = [host for host in fleet.hosts if pattern.lower() in host.name.lower()]
    if not found:
        raise HTTPException(404, f"No hypervisor matching '{pattern[:64]}' could be found.")
    return found


def _called(call: Call, fleet: _Fleet, id: str) -> Host:
    for host in fleet.hosts:
        if str(hypervisor_id(call, host.name)) == id.lower():
            return host
    if call.has(53) and not _is_uuid(id):
        raise HTTPException(400, f"Invalid uuid {id[:64]}")
    raise HTTPException(404, f"Hypervisor with ID '{id[:64]}' could not be found.")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _brief(call: Call, host: Host) -> dict[str, Any]:
    return {
        "id": hypervisor_id(call, host.name),
        "hypervisor_hostname": host.name,
        "state": state_of(host),
        "status": status_of(host),
    }


def _detailed(call: Call, host: Host, vms: Iterable[VmRecord]) -> dict[str, Any]:
    reason = host.maintenance_reason or None
    service = {"id": service_id(call, host.name), "host": host.name, "disabled_reason": reason}
    view = _brief(call, host) | {
        "hypervisor_type": TYPE,
        "hypervisor_version": host.facts.qemu_version,
        "host_ip": _ip(host.facts.address),
        "service": service,
    }
    if call.has(88):
        return view | {"uptime": None}
    cpu = {"arch": "x86_64", "model": host.facts.cpu_model, "vendor": "", "features": [],
           "topology": {"cores": host.facts.cpus, "threads": 1, "sockets": 1}}  # fmt: skip
    return view | _resources(host, vms) | {"cpu_info": cpu if call.has(28) else json.dumps(cpu)}


def _resources(host: Host, vms: Iterable[VmRecord]) -> dict[str, int]:
    """Of local disks only what is free is known."""
    facts, here = host.facts, list(vms)
    disk_gib = (facts.disk_free_bytes or 0) // GIB
    return {
        "vcpus": facts.cpus,
        "memory_mb": facts.memory_total_bytes // MIB,
        "local_gb": disk_gib,
        "vcpus_used": sum(vm.vcpus or 0 for vm in here),
        "memory_mb_used": max(0, facts.memory_total_bytes - facts.memory_free_bytes) // MIB,
        "local_gb_used": 0,
        "free_ram_mb": facts.memory_free_bytes // MIB,
        "free_disk_gb": disk_gib,
        "current_workload": sum(vm.migration_id is not None for vm in here),
        "running_vms": sum(vm.state is GuestState.RUNNING for vm in here),
        "disk_available_least": disk_gib,
    }


def _servers(call: Call, vms: Iterable[VmRecord]) -> dict[str, Any]:
    """Absent where there are none, until 2.75 gave an empty list."""
    found = [{"name": vm.name, "uuid": vm.uuid} for vm in vms]
    return {"servers": found} if found or call.has(75) else {}


def _ip(address: str) -> str | None:
    try:
        return str(ip_address(address))
    except ValueError:
        return None


@router.get("/os-hosts", dependencies=[rule(Rule.HOSTS)])
async def list_hosts(call: Asking, request: Request) -> dict[str, Any]:
    """Before 2.43."""
    call.needs_version(1, below=43)
    zone = request.query_params.get("zone", call.setup.zone)
    hosts = await call.controller.registry.hosts() if zone == call.setup.zone else []
    return {"hosts": [{"host_name": h.name, "service": "compute", "zone": call.setup.zone} for h in hosts]}


@router.get("/os-hosts/{name}", dependencies=[rule(Rule.HOSTS)])
async def show_host(name: str, call: Asking) -> dict[str, Any]:
    """The same, with what it has and what is used of it."""
    call.needs_version(1, below=43)
    fleet = await _fleet(call)
    host = next((h for h in fleet.hosts if h.name == name), None)
    if host is None:
        raise HTTPException(404, f"Compute host {name[:64]} could not be found.")
    has = _resources(host, fleet.vms[name])
    total = (host.facts.cpus, has["memory_mb"], has["local_gb"])
    used = (has["vcpus_used"], has["memory_mb_used"], has["local_gb_used"])
    rows = {"(total)": total, "(used_now)": used, "(used_max)": used}
    return {
        "host": [
            {"resource": {"host": name, "project": word, "cpu": cpu, "memory_mb": memory, "disk_gb": disk}}
            for word, (cpu, memory, disk) in rows.items()
        ]
    }
