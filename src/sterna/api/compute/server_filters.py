"""Which servers a list has: Nova's filters, and who may use each in which version.

A filter by something that no server here has lets none pass, as in Nova. What a user may not filter by is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC
from ipaddress import ip_address
from typing import NamedTuple

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute import server_view
from sterna.api.compute.call import Call
from sterna.api.compute.reading import NamePattern, at, boolean, instant
from sterna.controller.records.servers import Server
from sterna.domain.compute.flavors import flavor_of
from sterna.domain.compute.statuses import STATUSES

Test = Callable[[Server], bool]
Make = Callable[[Call, str], Test]
Field = Callable[[Server], str]


class _Filter(NamedTuple):
    make: Make
    since: int | None = None
    """The minor version from which on everybody may use it; None: administrators only, in every version."""


def _same(field: Field) -> Make:
    return lambda _call, value: lambda server: field(server) == value


def _like(field: Field) -> Make:
    """A pattern, as far as `NamePattern` goes."""

    def make(_call: Call, value: str) -> Test:
        pattern = NamePattern(value)
        return lambda server: pattern.matches(field(server))

    return make


def _in_zone(call: Call, value: str) -> Test:
    found = NamePattern(value).matches(call.setup.zone)
    return lambda _server: found


def _locked(_call: Call, value: str) -> Test:
    wanted = boolean(value, "locked")
    return lambda _server: not wanted


def _on(_call: Call, value: str) -> Test:
    return lambda server: value in (server.vm.host, *server.vm.also)


def _never(_call: Call, _value: str) -> Test:
    return lambda _server: False


def _any(_call: Call, _value: str) -> Test:
    return lambda _server: True


def _state(server: Server) -> str:
    return server_view.state_at_rest(server).vm_state


def _power(server: Server) -> str:
    return str(server_view.state_at_rest(server).power_state)


def _created(server: Server) -> str:
    """As Nova's database has it."""
    return at(server_view.created_at(server)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _image(server: Server) -> str:
    return server.vm.nova.image if server.vm.nova is not None else ""


def _user(server: Server) -> str:
    return server.vm.nova.user_id if server.vm.nova is not None else ""


def _flavor(server: Server) -> str:
    return flavor_of(server.vm.nova, server.vm.memory_bytes, server.vm.vcpus).id


_FILTERS: dict[str, _Filter] = {
    "name": _Filter(_like(server_view.name_of), 1),
    "flavor": _Filter(_same(_flavor), 1),
    "image": _Filter(_same(_image), 1),
    "uuid": _Filter(lambda _call, value: lambda server: server.vm.uuid == value.lower(), 1),
    "reservation_id": _Filter(_like(server_view.reservation_id), 1),
    "tags": _Filter(_never, 26),
    "tags-any": _Filter(_never, 26),
    "not-tags": _Filter(_any, 26),
    "not-tags-any": _Filter(_any, 26),
    "locked": _Filter(_locked, 73),
    "availability_zone": _Filter(_in_zone, 83),
    "config_drive": _Filter(_like(lambda _server: ""), 83),
    "key_name": _Filter(_never, 83),
    "created_at": _Filter(_like(_created), 83),
    "launched_at": _Filter(_like(_created), 83),
    "terminated_at": _Filter(_never, 83),
    "power_state": _Filter(_same(_power), 83),
    "task_state": _Filter(lambda _call, value: lambda server: server.moving and value == "migrating", 83),
    "vm_state": _Filter(_same(_state), 83),
    "progress": _Filter(_same(lambda server: str(server_view.progress(server))), 83),
    "user_id": _Filter(_same(_user), 83),
    "hostname": _Filter(_like(server_view.name_of), 90),
    "display_name": _Filter(_like(server_view.name_of)),
    "image_ref": _Filter(_same(_image)),
    "host": _Filter(_on),
    "node": _Filter(_on),
    "project_id": _Filter(_same(lambda server: server.project_id)),
    "tenant_id": _Filter(_same(lambda server: server.project_id)),
    "description": _Filter(_never),
    "access_ip_v4": _Filter(_never),
    "access_ip_v6": _Filter(_never),
    "kernel_id": _Filter(_like(lambda _server: "")),
    "ramdisk_id": _Filter(_like(lambda _server: "")),
    "launch_index": _Filter(_same(lambda _server: "0")),
    "locked_by": _Filter(_never),
    "root_device_name": _Filter(_never),
    "soft_deleted": _Filter(_any),
}
_REFUSED = frozenset({
    "block_device_mapping", "info_cache", "metadata", "pci_devices", "security_groups", "services",
    "system_metadata",
})  # fmt: skip
"""Nova has no filter by these: 400 to an administrator."""
_ADDRESSES = {"ip": (4, 1), "ip6": (6, 5)}
"""By parameter: the IP version, and the minor version from which on everybody may use it."""
KNOWN = frozenset({*_FILTERS, *_REFUSED, *_ADDRESSES, "status", "deleted", "changes-since", "changes-before"})


def passing(call: Call, query: QueryParams, servers: Iterable[Server]) -> list[Server]:
    """Those that pass every filter of the query. Raises HTTPException for one that makes no sense."""
    tests = [*_by_field(call, query), *_by_address(call, query), *_by_status(call, query), *_by_time(call, query)]
    return [server for server in servers if all(test(server) for test in tests)]


def _may(call: Call, since: int | None) -> bool:
    return call.known_user.admin or (since is not None and call.has(since))


def _by_field(call: Call, query: QueryParams) -> list[Test]:
    refused = sorted(_REFUSED & set(query.keys()))
    if refused and call.known_user.admin:
        raise HTTPException(400, f"Invalid filter field: {refused[0]}.")
    used = [(name, one) for name, one in _FILTERS.items() if name in query and _may(call, one.since)]
    return [one.make(call, query.getlist(name)[0]) for name, one in used]


def _by_address(call: Call, query: QueryParams) -> list[Test]:
    """A pattern that has to fit from an address's beginning on; of two, either."""
    wanted = [
        (version, NamePattern(f"^{query[name].removeprefix('^')}"))
        for name, (version, since) in _ADDRESSES.items()
        if name in query and _may(call, since)
    ]

    def has_one(server: Server) -> bool:
        addresses = [(ip_address(a).version, a) for port in server.ports for a in port.addresses]
        return any(
            version == wanted_version and pattern.fits(address)
            for wanted_version, pattern in wanted
            for version, address in addresses
        )

    return [has_one] if wanted else []


def _by_status(call: Call, query: QueryParams) -> list[Test]:
    words = {word.upper() for word in query.getlist("status")}
    if words and not words & STATUSES and call.has(38):
        raise HTTPException(400, "Invalid status value")
    return [lambda server: server_view.state_of(server).status in words] if words else []


def _by_time(call: Call, query: QueryParams) -> list[Test]:
    since, before = instant(query, "changes-since"), instant(query, "changes-before")
    tests: list[Test] = []
    if since is not None:
        tests.append(lambda server: at(server_view.updated_at(server)) >= since)
    if before is not None:
        call.needs_version(66)
        if since is not None and before < since:
            raise HTTPException(400, "changes-since is later than changes-before")
        tests.append(lambda server: at(server_view.updated_at(server)) <= before)
    return tests
