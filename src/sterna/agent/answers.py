"""What an agent answers another one that asks about its host. None of it is about one migration's half.

Called by way of `daemon.py`.
"""

from __future__ import annotations

from sterna.agent.destination_checks import DestinationChecks
from sterna.domain import untrusted
from sterna.domain.errors import BadRequest
from sterna.domain.model import Data, Vm
from sterna.domain.secrets import Need
from sterna.migration import secrets
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal
from sterna.rpc.envelope import Request


class Answers:
    """One host's answers about itself."""

    def __init__(self, host: HostPorts, journal: Journal) -> None:
        self._host, self._journal = host, journal
        self._checks = DestinationChecks(host, journal)

    async def check_destination(self, request: Request) -> Data:
        """`check_destination {vm, may, needs, definition, cpu}`: every reason this host has against it, the newest
        epoch it has seen, and which of the secrets in `needs` it lacks."""
        may, vm = tuple(str(word) for word in request.params.get("may", ())), _vm(request)
        definition, cpu = (str(request.params.get(name) or "") for name in ("definition", "cpu"))
        refusals = await self._checks.check(vm, may, definition, cpu)
        missing, against = await secrets.lacking(self._host, _needs(request), vm.uuid)
        return {
            "refusals": [r.model_dump() for r in [*refusals, *against]],
            "epoch": self._journal.newest_epoch(vm.uuid),
            "lacking": [need.key for need in missing],
        }

    async def secrets_wanted(self, request: Request) -> Data:
        """`secrets_wanted {vm, needs}`: which of these secrets this host lacks, what speaks against bringing them,
        and the key to seal them with for this life of the agent. Changes nothing."""
        vm = untrusted.named(request.params.get("vm"), "vm")
        missing, against = await secrets.lacking(self._host, _needs(request), vm)
        return {
            "lacking": [need.key for need in missing],
            "refusals": [r.model_dump() for r in against],
            "key": self._host.sealing.public_key,
        }

    async def sees_token(self, request: Request) -> Data:
        """`sees_token {path, token, place}`: is that storage shared with the sender, which file is there, and does
        somebody hold a lock on that place of it?"""
        path = untrusted.path(request.params.get("path"), "path")
        token = untrusted.named(request.params.get("token"), "token")
        place = untrusted.place(request.params.get("place"))
        sight = await self._host.storage.sight(path, token, place)
        return {"seen": sight.seen, "sight": sight.model_dump(mode="json")}

    async def expect_stream(self, request: Request) -> Data:
        """`expect_stream {disks, begins}`: take one connection as QEMU will; the port, 0 where it cannot be tried.
        `disks`: local disks come as well, by a port of their own. `begins`: the copy comes next, its ports are
        promised to nobody else. Raises Temporary while there are none."""
        if self._host.probe is None:
            return {"port": 0}
        needed = 2 if request.params.get("disks") is True else 1
        promise_to = request.migration_id if request.params.get("begins") is True else ""
        return {"port": await self._host.probe.expect(needed, promise_to)}

    async def digest(self, request: Request) -> Data:
        """`digest {path}`: what tells the content of a medium here from any other; null where there is none."""
        path = untrusted.path(request.params.get("path"), "path")
        return {"digest": await self._host.storage.digest(path)}

    async def sees_file(self, request: Request) -> Data:
        """`sees_file {path, token, name, perhaps}`: is that file on storage that this host sees, under its path or
        under another one that a domain here names? `perhaps`: also one that does not answer, and may lead there.

        Raises Unreachable where libvirt does not answer, StorageSilent where the path itself does not."""
        path = untrusted.path(request.params.get("path"), "path")
        name = untrusted.file_name(request.params.get("name"), "name")
        token = untrusted.named(request.params.get("token"), "token")
        seen = await self._host.storage.sees_token(path, token)
        claims = await self._host.hypervisor.claims()
        perhaps = request.params.get("perhaps") is True
        users = await self._host.storage.named_by(name, token, claims, perhaps=perhaps)
        return {"seen": seen, "users": list(users)}


def _vm(request: Request) -> Vm:
    """The VM in question. Raises BadRequest."""
    return untrusted.vm(request.params.get("vm") or {})


def _needs(request: Request) -> list[Need]:
    """The secrets in question. Raises BadRequest."""
    try:
        return [Need.model_validate(told) for told in request.params.get("needs", ())]
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{request.method}: these are no secrets' descriptions: {error}") from error
