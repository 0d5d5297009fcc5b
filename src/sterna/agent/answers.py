"""An agent's answers to another agent's questions about its host. None of them is about one migration's half.

Called by way of `daemon.py`.
"""

from __future__ import annotations

from sterna.agent.destination_checks import DestinationChecks
from sterna.domain import untrusted
from sterna.domain.calls import (
    CheckDestination,
    Digest,
    DigestOf,
    ExpectStream,
    FileSeen,
    Judgement,
    Port,
    SecretsLacking,
    SecretsWanted,
    SeesFile,
    SeesToken,
    TokenSeen,
)
from sterna.domain.model import Data
from sterna.domain.trust.bounds import CHECK_TURN_S, CHECKS_AT_ONCE, PROBES
from sterna.migration import secrets
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal
from sterna.rpc.envelope import Request
from sterna.rpc.sender_limits import SenderRates, SenderTurns


class Answers:
    """One host's answers about itself."""

    def __init__(self, host: HostPorts, journal: Journal) -> None:
        self._host, self._journal = host, journal
        self._checks = DestinationChecks(host, journal)
        self._probes = SenderRates(host.clock)
        self._turns = SenderTurns(CHECKS_AT_ONCE, CHECK_TURN_S)

    async def check_destination(self, request: Request) -> Data:
        """`check_destination {vm, may, needs, definition, cpu, network_host}`: every reason this host has against
        it, the newest epoch it has seen, and which of the secrets in `needs` it lacks."""
        asked = untrusted.call(CheckDestination, request.params)
        vm, needs = untrusted.vm(asked.vm), untrusted.needs(asked.needs)
        async with self._turns.of(request.sender):
            refusals = await self._checks.check(vm, asked, request.sender)
            missing, against = await secrets.lacking(self._host, needs, vm.uuid)
        return Judgement(
            refusals=(*refusals, *against),
            epoch=self._journal.newest_epoch(vm.uuid),
            lacking=tuple(need.key for need in missing),
        ).to_wire()

    async def secrets_wanted(self, request: Request) -> Data:
        """`secrets_wanted {vm, needs}`: which of these secrets this host lacks, what speaks against bringing them,
        and the key to seal them with for this life of the agent. Changes nothing."""
        asked = untrusted.call(SecretsWanted, request.params)
        needs, vm = untrusted.needs(asked.needs), untrusted.named(asked.vm, "vm")
        missing, against = await secrets.lacking(self._host, needs, vm)
        return SecretsLacking(
            lacking=tuple(need.key for need in missing), refusals=against, key=self._host.sealing.public_key
        ).to_wire()

    async def sees_token(self, request: Request) -> Data:
        """`sees_token {path, token, place}`: is that storage shared with the sender, which file is there, and is
        there a lock on that place of it?"""
        asked = untrusted.call(SeesToken, request.params)
        path, token = untrusted.path(asked.path, "path"), untrusted.named(asked.token, "token")
        sight = await self._host.storage.sight(path, token, untrusted.place(asked.place))
        return TokenSeen(seen=sight.seen, sight=sight).to_wire()

    async def sees_file(self, request: Request) -> Data:
        """`sees_file {path, token, name, perhaps}`: is that file on storage that this host sees, under its path or
        under another one that a domain here names? `perhaps`: also one that does not answer, and may lead there.

        Raises Unreachable where libvirt does not answer, StorageSilent where the path itself does not."""
        asked = untrusted.call(SeesFile, request.params)
        path, name = untrusted.path(asked.path, "path"), untrusted.file_name(asked.name, "name")
        token = untrusted.named(asked.token, "token")
        seen = await self._host.storage.sees_token(path, token)
        claims = await self._host.hypervisor.claims()
        users = await self._host.storage.named_by(name, token, claims, perhaps=asked.perhaps)
        return FileSeen(seen=seen, users=users).to_wire()

    async def digest(self, request: Request) -> Data:
        """`digest {path}`: a digest of a medium's content here; null where there is no such medium."""
        path = untrusted.path(untrusted.call(DigestOf, request.params).path, "path")
        return Digest(digest=await self._host.storage.digest(path)).to_wire()

    async def expect_stream(self, request: Request) -> Data:
        """`expect_stream {disks, begins}`: take one connection as QEMU will; the port, 0 where it cannot be tried.
        `disks`: local disks come as well, by a port of their own. `begins`: the copy comes next, its ports are
        promised to no other, where its migration has been prepared here. Raises Temporary while there are none.
        """
        if self._host.probe is None:
            return Port(port=0).to_wire()
        asked = untrusted.call(ExpectStream, request.params)
        known = self._journal.get(request.migration_id) if request.migration_id else None
        arrives = known is not None and known[0].source == request.sender
        if not arrives and not self._probes.admits(request.sender, PROBES):
            return Port(port=0).to_wire()
        promise_to = request.migration_id if asked.begins and arrives else ""
        return Port(port=await self._host.probe.expect(2 if asked.disks else 1, promise_to)).to_wire()
