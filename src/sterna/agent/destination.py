"""The destination side: prepares, waits, finishes or cleans up. It journals its own half and decides nothing
about the guest: the source drives.

Everything for one migration happens under that migration's lock, so a repeated call after a lost answer waits
for the first one and then finds its work done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sterna.agent.arrivals import Arrivals
from sterna.agent.checks import DestinationChecks
from sterna.agent.peer import RpcPeer
from sterna.domain.errors import BadRequest, Conflict, SternaError
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Vm
from sterna.domain.step import History
from sterna.migration import pre
from sterna.migration.context import Context, HostPorts
from sterna.migration.flow import DESTINATION, DESTINATION_POST, REMOVE_VOLUME_CONNECTION
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.rpc.outbox import Outbox
from sterna.saga.runner import Runner

log = structlog.get_logger(__name__)


class DestinationDesk:
    """All migrations that arrive on this host."""

    def __init__(
        self,
        host: HostPorts,
        journal: Journal,
        runner: Runner,
        client: RpcClient,
        outbox: Outbox,
        on_write: Callable[[Entry], None],
    ) -> None:
        self._host, self._journal, self._runner = host, journal, runner
        self._client, self._outbox, self._on_write = client, outbox, on_write
        self._checks = DestinationChecks(host, journal)
        self._contexts: dict[str, Context] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._arrivals = Arrivals()

    # ------------------------------------------------------------ calls

    async def check_destination(self, request: Request) -> Data:
        """`check_destination {vm}`: every reason this host has against it."""
        refusals = await self._checks.check(_vm(request))
        return {"refusals": [r.model_dump() for r in refusals]}

    async def sees_token(self, request: Request) -> Data:
        """`sees_token {path, token}`: is that storage shared with the sender?"""
        path, token = str(request.params.get("path", "")), str(request.params.get("token", ""))
        return {"seen": await self._host.storage.sees_token(path, token)}

    async def observe_guest(self, request: Request) -> Data:
        """`observe_guest {vm}`: what this host's hypervisor says of it now."""
        seen = await self._host.hypervisor.observe(str(request.params.get("vm", "")))
        known = self._journal.get(request.migration_id)
        if known is not None and known[1] is Role.DESTINATION:
            seen = self._arrivals.remember(self._open(known[0]), seen)
        return {"observation": seen.model_dump(mode="json")}

    async def pre_live_migration(self, request: Request) -> Data:
        """P3: prepare everything (P4-P10); the answer is P11. Raises Conflict for a stale or closed migration."""
        migration = self._migration(request)
        async with self._lock(migration.id):
            ctx = self._open(migration)
            if ctx.history.turned is not None or ctx.history.closed:
                raise Conflict(f"migration {migration.id} was rolled back on {self._host.name} already")
            ctx.note_once("P3", "incoming-vm", {"vm": _vm(request).model_dump(mode="json")})
            await self._runner.run(DESTINATION.until_pivot, ctx)
            self._arrivals.watch(ctx)
            answer = pre.pre_live_migration_result(ctx)
            ctx.note_once("P11", "return-result", answer)
            return answer

    async def wait_vif_plugged(self, request: Request) -> Data:
        """P12: answer when every port made ahead is wired."""
        return await pre.wait_wired(self._known(request))

    async def end_incoming(self, request: Request) -> Data:
        """R0: the source asked both sides; end what waits for its memory here and never ran."""
        ctx = self._known(request)
        ended = await self._host.hypervisor.end_incoming(ctx.vm_uuid, ctx.migration.epoch)
        ctx.note("R0", "ended-incoming", {"ended": ended})
        return {"ended": ended}

    async def remove_volume_connection(self, request: Request) -> Data:
        """R3: disconnect the volumes and terminate their connections."""
        if self._journal.get(request.migration_id) is None:
            return {"removed": False}  # P3 never came; if it comes late, R4 has written the migration off
        ctx = self._turn(self._known(request))
        async with self._lock(ctx.migration.id):
            await self._runner.run(REMOVE_VOLUME_CONNECTION, _backwards(ctx))
            return {"removed": True}

    # ------------------------------------------------------------ casts

    async def rollback(self, request: Request) -> None:
        """R4 arrived: R5-R7, whatever of them is left, then the report."""
        migration = self._migration(request)
        try:
            ctx = self._turn(
                self._open(migration)
            )  # never heard of: accepted only to be closed, a late P3 is refused
        except Conflict:
            if self._journal.get(migration.id) is not None:
                raise
            # A newer migration of this VM was accepted here since: this one never was, and never can be.
            self._peer(migration).cast("destination_report", {"row": "R7"}, key="R7-report")
            return
        async with self._lock(migration.id):
            if ctx.history.closed:
                return
            steps = DESTINATION.compensation(ctx.history.plans)
            await self._runner.run(steps, _backwards(ctx), forever=True)
            self._finish(ctx, "R7")

    async def post_live_migration(self, request: Request) -> None:
        """F5 arrived: F6-F9, then the report."""
        migration = self._migration(request)
        async with self._lock(migration.id):
            ctx = self._open(migration)
            if ctx.history.closed:
                return
            await self._runner.run(DESTINATION_POST.after_pivot, ctx, forever=True)
            self._finish(ctx, "F9")

    # ------------------------------------------------------------ the agent's life

    def resume_all(self) -> None:
        """Look out again for the guests that an earlier life of this agent expected."""
        for migration, role in self._journal.open():
            if role is Role.DESTINATION:
                self._arrivals.watch(self._open(migration))

    async def stop(self) -> None:
        """Look out no more."""
        await self._arrivals.stop()

    # ------------------------------------------------------------ contexts

    def _finish(self, ctx: Context, row: str) -> None:
        """Report first: a crash in between repeats the cast's handling, and the report is sent once by its key."""
        ctx.peer.cast("destination_report", {"row": row}, key=f"{row}-report")
        ctx.write(Kind.CLOSED, row=row)
        self._arrivals.forget(ctx)
        self._contexts.pop(ctx.migration.id, None)

    def _migration(self, request: Request) -> Migration:
        migration = Migration.model_validate(request.params.get("migration") or {})
        if (migration.id, migration.epoch) != (request.migration_id, request.epoch):
            raise BadRequest("the message's migration id and epoch are not those of its migration")
        return migration

    def _open(self, migration: Migration) -> Context:
        """The context of a migration, accepted now if it never was. Raises Conflict where it may not be."""
        if migration.id not in self._contexts:
            accepted = self._journal.accept(migration, Role.DESTINATION)
            if accepted.epoch != migration.epoch:
                raise Conflict(f"migration {migration.id} was accepted with epoch {accepted.epoch}")
            history = History.read(self._journal.entries(migration.id))
            peer = self._peer(accepted)
            self._contexts[migration.id] = Context(
                accepted,
                Role.DESTINATION,
                self._host,
                peer,
                self._client,
                self._journal,
                history,
                on_write=self._on_write,
            )
        return self._contexts[migration.id]

    def _peer(self, migration: Migration) -> RpcPeer:
        return RpcPeer(self._client, self._outbox, migration, migration.source)

    def _known(self, request: Request) -> Context:
        """The context of a migration this host has accepted. Raises Conflict for any other."""
        known = self._journal.get(request.migration_id)
        if known is None or known[1] is not Role.DESTINATION:
            raise Conflict(f"{self._host.name} has not prepared for migration {request.migration_id}")
        if known[0].epoch != request.epoch:
            raise Conflict(f"stale epoch {request.epoch}: migration {known[0].id} has epoch {known[0].epoch}")
        return self._open(known[0])

    def _turn(self, ctx: Context) -> Context:
        """From here on this half is compensated: a preparation still under way stops at its next step."""
        if ctx.history.turned is None and not ctx.history.closed:
            ctx.write(Kind.TURNED, data={"error": SternaError("the source rolls back").to_wire()})
            ctx.abort.set()
        return ctx

    def _lock(self, migration_id: str) -> asyncio.Lock:
        return self._locks.setdefault(migration_id, asyncio.Lock())


def _backwards(ctx: Context) -> Context:
    """The same context for compensation, which no abort stops. Called under the migration's lock."""
    ctx.abort.clear()
    return ctx


def _vm(request: Request) -> Vm:
    return Vm.model_validate(request.params.get("vm") or {})
