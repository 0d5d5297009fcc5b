"""The halves of migrations that arrive on this host: each one's context and lock, and how it turns back and ends.

A half is one host's part of a migration, with a journal of its own.

Everything for one migration happens under that migration's lock, so a repeated call after a lost answer waits
for the first one and then finds its work done. Used by `destination.py`, `settling.py` and `fencing.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from sterna.agent.arrivals import Arrivals
from sterna.agent.peer import RpcPeer
from sterna.domain import untrusted
from sterna.domain.entries.base import DirectionChanged, Failure
from sterna.domain.entries.destination import VmUpdated
from sterna.domain.entries.destination_notes import IncomingVm
from sterna.domain.entries.notes import DestinationReport, Waiting, WroteOffPeer
from sterna.domain.errors import BadRequest, Conflict, SternaError
from sterna.domain.fencing import SentWriteOff
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.step import History
from sterna.migration.context import Context, HostPorts
from sterna.migration.flow import DESTINATION
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.rpc.outbox import Outbox
from sterna.saga.runner import Runner


class IncomingHalves:
    """One host's halves of the migrations that arrive on it."""

    def __init__(
        self,
        host: HostPorts,
        journal: Journal,
        runner: Runner,
        client: RpcClient,
        outbox: Outbox,
        on_write: Callable[[Entry], None],
    ) -> None:
        self.host, self.journal, self.runner = host, journal, runner
        self.arrivals = Arrivals()
        self._client, self._outbox, self._on_write = client, outbox, on_write
        self._contexts: dict[str, Context] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """While somebody acts, or waits to."""

    # ------------------------------------------------------------ which one

    def migration(self, request: Request) -> Migration:
        """The one that a request brings with it. Raises BadRequest where it is not this host's, or not its own."""
        migration = untrusted.migration_in(request.params)
        if (migration.id, migration.epoch) != (request.migration_id, request.epoch):
            raise BadRequest("the message's migration id and epoch are not those of its migration")
        if migration.destination != self.host.name:
            raise BadRequest(f"migration {migration.id} goes to {migration.destination}, not to {self.host.name}")
        return migration

    def context(self, migration: Migration) -> Context:
        """The context of a migration, accepted now if it never was. Raises Conflict where it may not be."""
        if migration.id in self._contexts:
            return self._contexts[migration.id]
        accepted = self.journal.accept(migration, Role.DESTINATION)
        if accepted.epoch != migration.epoch:
            raise Conflict(f"migration {migration.id} was accepted with epoch {accepted.epoch}")
        history = History.read(self.journal.entries(migration.id))
        ctx = Context(
            accepted,
            Role.DESTINATION,
            self.host,
            self.peer(accepted),
            self._client,
            self.journal,
            history,
            on_write=self._on_write,
        )
        if not history.closed:
            self._contexts[migration.id] = ctx
        return ctx

    def known(self, request: Request) -> Context:
        """The context of a migration this host has accepted. Raises Conflict for any other."""
        known = self.journal.get(request.migration_id)
        if known is None or known[1] is not Role.DESTINATION:
            raise Conflict(f"{self.host.name} has not prepared for migration {request.migration_id}")
        if known[0].epoch != request.epoch:
            raise Conflict(f"stale epoch {request.epoch}: migration {known[0].id} has epoch {known[0].epoch}")
        return self.context(known[0])

    def open_context(self, migration_id: str) -> Context | None:
        """That of an open migration that this life of the agent has had to do with."""
        return self._contexts.get(migration_id)

    @property
    def open_contexts(self) -> list[Context]:
        """Those of all of them."""
        return list(self._contexts.values())

    def lock(self, migration_id: str) -> asyncio.Lock:
        """Who holds it acts for that migration."""
        return self._locks.setdefault(migration_id, asyncio.Lock())

    def peer(self, migration: Migration) -> RpcPeer:
        """The migration's source."""
        return RpcPeer(self._client, self._outbox, migration, migration.source)

    # ------------------------------------------------------------ how it turns back, and ends

    def turn_back(self, ctx: Context) -> Context:
        """From here on this half is compensated: a preparation still under way stops at its next step."""
        if ctx.history.turned_back is None and not ctx.history.closed:
            ctx.write(
                Kind.COMPENSATING,
                data=DirectionChanged(error=Failure.of(SternaError("the source rolls back"))).to_data(),
            )
            ctx.abort.set()
        return ctx

    async def undo(self, ctx: Context) -> None:
        """R5-R7, whatever of them is left. Called under the migration's lock."""
        steps = DESTINATION.compensation(ctx.history.plans)
        await self.runner.run(steps, backwards(ctx), forever=True)

    def finish(self, ctx: Context, row: str) -> None:
        """Report first: a crash in between repeats the cast's handling, and the report is sent once by its key.

        An R7 without P3's VM has undone nothing: P3 never came, or this host has lost its journal since. The source
        knows which.
        """
        guest = ctx.history.find(VmUpdated)
        settled = ctx.history.find(WroteOffPeer)
        report = DestinationReport(
            row=row,
            written_off=SentWriteOff(**dict(settled)) if settled else None,
            guest_state=guest.power_state if guest else "",
            guest_reason=(guest and guest.power_reason) or "",
            forgotten=row == "R7" and not ctx.history.has(IncomingVm),
        )
        ctx.peer.cast("destination_report", report.to_data(), key=f"{row}-report")
        self.close(ctx, row)

    def close(self, ctx: Context, row: str) -> None:
        """It is over here; `row`: the one that ended it, '' for none."""
        ctx.write(Kind.CLOSED, row=row)
        self.arrivals.forget(ctx)
        self._contexts.pop(ctx.migration.id, None)


@contextlib.contextmanager
def journaled(ctx: Context, row: str) -> Iterator[None]:
    """Why this half cannot act on the cast of that row is journaled whenever the reason changes. The source may be
    gone, so this journal is the only place that shows what the half waits for."""
    try:
        yield
    except SternaError as error:
        with contextlib.suppress(SternaError):  # a full disk: at the next try
            ctx.note_change(Waiting(why=f"{row} is tried again: {error.message}"), row=row)
        raise


def backwards(ctx: Context) -> Context:
    """The same context for compensation, which no abort stops. Called under the migration's lock."""
    ctx.abort.clear()
    return ctx
