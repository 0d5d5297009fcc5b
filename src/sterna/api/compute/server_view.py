"""A server as Nova shows it, in every version of the API."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from typing import Any

from sterna.api.compute.call import Call
from sterna.api.compute.reading import at, moment, moment_z
from sterna.controller.records.registry import Host
from sterna.controller.records.servers import Server
from sterna.domain.compute.flavors import flavor_of
from sterna.domain.compute.policies import Rule
from sterna.domain.compute.statuses import ServerState, server_state
from sterna.domain.nova import Flavor

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
"""Where it is not known when a VM was made: the field has to be a time."""
UNKNOWN = "unknown"
"""Where the owner is not known: the fields may not be empty. Keystone gives no such ID."""
_WITH_PROGRESS = ("ACTIVE", "MIGRATING")


def name_of(server: Server) -> str:
    """What its users call it."""
    nova = server.vm.nova
    return (nova.name if nova is not None else "") or server.vm.name


def state_of(server: Server) -> ServerState:
    """In Nova's words."""
    return server_state(server.vm.state, migrating=server.moving, asleep=server.vm.asleep)


def state_at_rest(server: Server) -> ServerState:
    """The same, whether or not a migration holds it."""
    return server_state(server.vm.state, migrating=False, asleep=server.vm.asleep)


def created_at(server: Server) -> str:
    """ISO 8601 UTC."""
    nova = server.vm.nova
    return (nova.created_at if nova is not None else "") or UNKNOWN_TIME


def updated_at(server: Server) -> str:
    """The same, of its last change that is known: it never goes back."""
    migration = server.migration
    known = (created_at(server), server.vm.changed_at, migration.updated_at if migration is not None else "")
    return max(known, key=at)


def reservation_id(server: Server) -> str:
    """Nova's have this form; each server has one of its own here."""
    return f"r-{server.vm.uuid[:8]}"


def progress(server: Server) -> int:
    """Of its migration, in percent; 0 for none."""
    return int(server.migration.progress.percent) if server.migration is not None else 0


def host_id(project_id: str, host: str) -> str:
    """Nova's: the same for a project's servers on one host, and it names no host."""
    return hashlib.sha224(f"{project_id}{host}".encode()).hexdigest()


def host_status(host: Host | None) -> str:
    """In one of Nova's words."""
    if host is None:
        return "UNKNOWN"
    if host.dead:
        return "DOWN"
    if not host.up:
        return "UNKNOWN"
    return "MAINTENANCE" if host.maintenance else "UP"


def brief(call: Call, server: Server) -> dict[str, Any]:
    """As in lists without details."""
    id = server.vm.uuid
    return {"id": id, "name": name_of(server), "links": call.links(f"servers/{id}")}


def detailed(call: Call, server: Server, host: Host | None, zone: str, *, alone: bool) -> dict[str, Any]:
    """With everything. `alone`: not in a list."""
    vm, state = server.vm, state_of(server)
    nova = vm.nova
    image = nova.image if nova is not None else ""
    view = brief(call, server) | {
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": _addresses(server),
        "created": moment_z(created_at(server)),
        "updated": moment_z(updated_at(server)),
        "flavor": _flavor(call, flavor_of(nova, vm.memory_bytes, vm.vcpus)),
        "hostId": host_id(server.project_id, vm.host),
        "image": {"id": image, "links": call.links(f"images/{image}")[1:]} if image else "",
        "metadata": {},
        "status": state.status,
        "tenant_id": server.project_id or UNKNOWN,
        "user_id": (nova.user_id if nova is not None else "") or UNKNOWN,
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": zone,
        "config_drive": "",
        "key_name": None,
        "OS-SRV-USG:launched_at": moment(nova.created_at) if nova is not None else None,
        "OS-SRV-USG:terminated_at": None,
        "OS-EXT-STS:task_state": state.task_state,
        "OS-EXT-STS:vm_state": state.vm_state,
        "OS-EXT-STS:power_state": state.power_state,
        "os-extended-volumes:volumes_attached": [
            {"id": id} | ({"delete_on_termination": False} if call.has(3) else {}) for id in vm.volumes
        ],
    }
    if state.status in _WITH_PROGRESS:
        view["progress"] = progress(server)
    return view | _of_versions(call, zone, alone=alone) | _of_hosts(call, server, host)


def _of_versions(call: Call, zone: str, *, alone: bool) -> dict[str, Any]:
    """What newer versions show to everybody."""
    fields: tuple[tuple[int, str, Any], ...] = (
        (9, "locked", False),
        (19, "description", None),
        (26, "tags", []),
        (63, "trusted_image_certificates", None),
        (73, "locked_reason", None),
        (96, "pinned_availability_zone", None),
    )
    view = {name: value for minor, name, value in fields if call.has(minor)}
    if alone and call.has(71):
        view["server_groups"] = []
    return view


def _of_hosts(call: Call, server: Server, host: Host | None) -> dict[str, Any]:
    """What only administrators see, and the host name in the guest, which from 2.90 on is for all."""
    view: dict[str, Any] = {}
    if call.has(90):
        view["OS-EXT-SRV-ATTR:hostname"] = name_of(server)
    if not call.may(Rule.SERVER_HOST):
        return view
    view |= {
        "OS-EXT-SRV-ATTR:host": server.vm.host,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": server.vm.host,
        "OS-EXT-SRV-ATTR:instance_name": server.vm.name,
    }
    if call.has(3):
        view |= {
            "OS-EXT-SRV-ATTR:hostname": name_of(server),
            "OS-EXT-SRV-ATTR:kernel_id": "",
            "OS-EXT-SRV-ATTR:launch_index": 0,
            "OS-EXT-SRV-ATTR:ramdisk_id": "",
            "OS-EXT-SRV-ATTR:reservation_id": reservation_id(server),
            "OS-EXT-SRV-ATTR:root_device_name": None,
            "OS-EXT-SRV-ATTR:user_data": None,
        }
    if call.has(16):
        view["host_status"] = host_status(host)
    return view


def _flavor(call: Call, flavor: Flavor) -> dict[str, Any]:
    """Embedded from 2.47 on: whoever may see the server sees its size."""
    if not call.has(47):
        return {"id": flavor.id, "links": call.links(f"flavors/{flavor.id}")[1:]}
    view: dict[str, Any] = {
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "original_name": flavor.name,
    }
    if call.may(Rule.EXTRA_SPECS):
        view["extra_specs"] = flavor.extra_specs
    return view


def _addresses(server: Server) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for port in server.ports:
        for address in port.addresses:
            found.setdefault(port.network, []).append(
                {
                    "version": ip_address(address).version,
                    "addr": address,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": port.mac,
                }
            )
    return found
