"""In which order a list of servers is: `sort_key` and `sort_dir`, several of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute import server_view
from sterna.api.compute.call import Call
from sterna.api.compute.reading import at, wrong
from sterna.controller.records.servers import Server
from sterna.domain.compute.flavors import flavor_of

PARAMETERS = ("sort_key", "sort_dir")
_KEYS: dict[str, Callable[[Server], Any]] = {
    "created_at": lambda s: at(server_view.created_at(s)),
    "launched_at": lambda s: at(server_view.created_at(s)),
    "updated_at": lambda s: at(server_view.updated_at(s)),
    "display_name": server_view.name_of,
    "hostname": server_view.name_of,
    "host": lambda s: s.vm.host,
    "node": lambda s: s.vm.host,
    "image_ref": lambda s: s.vm.nova.image if s.vm.nova is not None else "",
    "instance_type_id": lambda s: flavor_of(s.vm.nova, s.vm.memory_bytes, s.vm.vcpus).id,
    "power_state": lambda s: server_view.state_at_rest(s).power_state,
    "vm_state": lambda s: server_view.state_at_rest(s).vm_state,
    "task_state": lambda s: s.moving,
    "progress": server_view.progress,
    "project_id": lambda s: s.project_id,
    "user_id": lambda s: s.vm.nova.user_id if s.vm.nova is not None else "",
    "uuid": lambda s: s.vm.uuid,
}
_ALIKE = frozenset({
    "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "display_description",
    "kernel_id", "key_name", "launch_index", "locked_by", "ramdisk_id", "root_device_name", "terminated_at",
})  # fmt: skip
"""All servers have the same of these."""
_IGNORED = frozenset({
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted",
    "deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on",
    "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode",
})  # fmt: skip
"""Before 2.75 Nova takes them and does nothing; then it refuses them."""
_OF_HOSTS = ("host", "node")


def ordered(call: Call, query: QueryParams, servers: Sequence[Server]) -> list[Server]:
    """As the query wants them, the newest first where it wants nothing. Raises HTTPException for a key or a
    direction that is none, 403 for one of hosts."""
    directions = [_descending(said.strip()) for said in query.getlist("sort_dir")]
    wanted = [_key(call, said.strip()) for said in query.getlist("sort_key")] or ["created_at"]
    otherwise = directions[0] if directions else True
    directions += [otherwise] * (len(wanted) - len(directions))
    found = sorted(servers, key=lambda server: server.vm.uuid)
    by = [*zip(wanted, directions, strict=False), ("created_at", otherwise)]
    for key, descending in reversed(by):
        if key in _KEYS:
            found.sort(key=_KEYS[key], reverse=descending)
    return found


def _descending(said: str) -> bool:
    if said not in ("asc", "desc"):
        raise wrong("sort_dir", "it is neither asc nor desc")
    return said == "desc"


def _key(call: Call, said: str) -> str:
    ignored = said in _IGNORED and not call.has(75)
    if said == "locked" or said in _ALIKE or ignored:
        return said
    if said not in _KEYS:
        raise wrong("sort_key", "servers cannot be sorted by this")
    if said in _OF_HOSTS and not call.known_user.admin:
        raise HTTPException(403, f"Only administrators can sort servers by {said}")
    return said
