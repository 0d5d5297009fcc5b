"""The destination side: prepares, waits, finishes or cleans up. It journals its own half and decides nothing
about the guest: the source drives.

The context, the lock and the end of a half are in `incoming_halves.py`. One that has lost its source ends in
`settling.py`. What this host answers about itself is in `answers.py`.
"""

from __future__ import annotations

import structlog

from sterna.agent.incoming_halves import IncomingHalves, backwards, journaled
from sterna.agent.settling import Settling
from sterna.domain import untrusted
from sterna.domain.calls import (
    Ended,
    GuestObserved,
    ListenAgain,
    Listening,
    MakeWayThere,
    ObserveGuest,
    PreLiveMigration,
    RehearseThere,
    TakeMedium,
    Taken,
)
from sterna.domain.entries.destination import TapsToMake
from sterna.domain.entries.destination_notes import (
    AnswerGiven,
    EndedIncoming,
    GuestLost,
    IncomingVm,
    ListeningAgain,
    PortReported,
)
from sterna.domain.entries.notes import DestinationReport, WroteOffPeer
from sterna.domain.entries.source import ConnectionsRemoved
from sterna.domain.errors import BadRequest, Conflict, SternaError, Temporary
from sterna.domain.journal import Migration, Role
from sterna.domain.model import Data, GuestState, Observation
from sterna.domain.secrets import Brought
from sterna.migration.destination import media, rehearsal, taps, wiring
from sterna.migration.destination.prepare import pre_live_migration_result
from sterna.migration.destination.rollback import refuse_if_used
from sterna.migration.destination.taps import taps_made
from sterna.migration.flow import DESTINATION, DESTINATION_POST, REMOVE_VOLUME_CONNECTION
from sterna.rpc.envelope import Request

log = structlog.get_logger(__name__)


class IncomingMigrations:
    """All migrations that arrive on this host."""

    def __init__(self, halves: IncomingHalves, settling: Settling) -> None:
        self._host, self._journal, self._runner = halves.host, halves.journal, halves.runner
        self._halves, self._arrivals, self._settling = halves, halves.arrivals, settling

    # ------------------------------------------------------------ calls

    async def take_medium(self, request: Request) -> Data:
        """`take_medium {path, offset, data}`: a piece of a medium, into the file that P8 made for it here.

        Raises Conflict for any other file, or once this half is undone."""
        ctx = self._halves.known(request)
        piece = untrusted.call(TakeMedium, request.params)
        async with self._halves.lock(ctx.migration.id):
            await media.take(ctx, piece)
        return Taken().to_wire()

    async def observe_guest(self, request: Request) -> Data:
        """`observe_guest {vm}`: this host's hypervisor's view of it now."""
        seen = await self._observe(untrusted.named(untrusted.call(ObserveGuest, request.params).vm, "vm"))
        known = self._journal.get(request.migration_id)
        if known is not None and known[1] is Role.DESTINATION:
            ctx = self._halves.context(known[0])
            seen = self._arrivals.remember(ctx, seen)
            return GuestObserved(observation=seen, written_off=ctx.history.find(WroteOffPeer)).to_wire()
        return GuestObserved(observation=seen).to_wire()

    async def _observe(self, vm: str) -> Observation:
        """The hypervisor's view; UNKNOWN where it does not answer: what the journal remembers may still help."""
        try:
            return await self._host.hypervisor.observe(vm)
        except SternaError as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)

    async def pre_live_migration(self, request: Request) -> Data:
        """P3: prepare everything (P4-P10); the answer is P11. Raises Conflict for a stale or closed migration."""
        migration = self._halves.migration(request)
        asked = untrusted.call(PreLiveMigration, request.params)
        vm, brought = untrusted.vm(asked.vm, uuid=migration.vm_uuid), asked.secrets or Brought()
        untrusted.needs(brought.needs)
        async with self._halves.lock(migration.id):
            if (false := await self._false_claim(migration)) is not None:
                raise false
            ctx = self._halves.context(migration)
            if ctx.history.turned_back is not None or ctx.history.closed:
                raise Conflict(f"migration {migration.id} was rolled back on {self._host.name} already")
            ctx.brought = brought
            ctx.note_once(IncomingVm(vm=vm))
            await self._runner.run(DESTINATION.until_pivot, ctx)
            self._arrivals.watch(ctx)
            facts = await self._host.hypervisor.host()
            answer = AnswerGiven(**dict(pre_live_migration_result(ctx, facts)))
            ctx.note_once(answer)
            return answer.to_data()

    async def _false_claim(self, migration: Migration) -> Conflict | None:
        """Why this, of which nothing was heard before, is not believed. Were it accepted, its source would hold the
        VM's lock here, and could raise its epoch until nobody believed the true one. Raises Temporary."""
        if self._journal.get(migration.id) is not None:
            return None
        if (await self._observe(migration.vm_uuid)).state is GuestState.RUNNING:
            return Conflict(
                f"{migration.vm_name} runs on {self._host.name}: it does not come from {migration.source}",
                fix="find out which of the two VMs is meant: `sterna audit`",
            )
        if (misnamed := self._misnamed(migration)) is not None:
            return misnamed
        why = await self._host.permits.against(migration) if self._host.permits is not None else ""
        if not why:
            return None
        return Conflict(
            f"{self._host.name} accepts migration {migration.id} from {migration.source} only if a controller has "
            f"requested it: {why}",
            fix="check that all clocks are right, and that controllers and agents have the same version; then "
            "retry",
        )

    def _misnamed(self, migration: Migration) -> Conflict | None:
        """What the cloud's services call this host, this host knows; and no other one."""
        own = self._host.network_host or self._host.name
        source, destination = migration.network_hosts
        if source != own == destination:
            return None
        return Conflict(
            f"according to {migration.source}, the names in the cloud are {source} for {migration.source} and "
            f"{destination} for {self._host.name}; but the name of {self._host.name} is {own}",
            fix="correct `host` in `[openstack]` of both agents' settings, and retry",
        )

    async def wait_vif_plugged(self, request: Request) -> Data:
        """P12: answer when every port made ahead is wired."""
        return (await wiring.wait_wired(self._halves.known(request))).to_data()

    async def make_way(self, request: Request) -> Data:
        """`make_way {autostart}`: M4 is next; delete the taps made ahead, and keep their ports. Raises Conflict."""
        asked = untrusted.call(MakeWayThere, request.params)
        return (await taps.make_way(self._halves.known(request), asked.autostart)).to_data()

    async def rehearse(self, request: Request) -> Data:
        """`rehearse {xml, postcopy, tls}`: try, after P11, what M4 would need; changes nothing."""
        asked = untrusted.call(RehearseThere, request.params)
        return (await rehearsal.rehearse_here(self._halves.known(request), asked)).to_wire()

    def port_reported(self, event: Data) -> None:
        """Another service's report of a VM's port: noted where this host prepares for that VM, once per port."""
        try:
            report = PortReported.from_data(event)
        except ValueError:
            return  # another version's: nothing waits for it alone
        port = report.port
        for ctx in self._halves.open_contexts:
            expected = ctx.history.has(TapsToMake) and any(n.port_id == port for n in taps_made(ctx))
            if ctx.vm_uuid == report.vm and expected and not ctx.history.closed:
                ctx.note_once(report, f"{report.name}-{port}")

    async def guest_leaves(self, migration_id: str) -> None:
        """A hint from its source: the guest is paused there, and will resume here or there."""
        ctx = self._halves.open_context(migration_id)
        if ctx is not None and ctx.role is Role.DESTINATION and not ctx.history.closed:
            await self._arrivals.expect(ctx)

    async def end_incoming(self, request: Request) -> Data:
        """R0: the source asked both sides; end what waits for its memory here and never ran."""
        ctx = self._halves.known(request)
        ended = await self._host.hypervisor.end_incoming(ctx.vm_uuid, ctx.migration.epoch)
        ctx.note(EndedIncoming(ended=ended))
        return Ended(ended=ended).to_wire()

    async def open_recovery(self, request: Request) -> Data:
        """`open_recovery {}`: post-copy is about to begin; answer once a broken stream could be joined again.

        Raises Unreachable while it could not.
        """
        ctx = self._halves.known(request)
        await self._host.hypervisor.open_recovery(ctx.vm_uuid)
        return Taken().to_wire()

    async def listen_again(self, request: Request) -> Data:
        """`listen_again {address}`: the stream broke in post-copy; wait for the source's half.

        Raises Conflict where the guest is not in post-copy here, BadRequest for an address that is not ours.
        """
        ctx = self._halves.known(request)
        address = untrusted.call(ListenAgain, request.params).address
        if address not in (self._host.address, *self._host.more_addresses):
            raise BadRequest(f"{address!r} is not a migration address of {self._host.name}")
        uri = await self._host.hypervisor.listen_again(ctx.vm_uuid, ctx.migration.epoch, address)
        ctx.note(ListeningAgain(uri=uri))
        return Listening(uri=uri).to_wire()

    async def end_lost(self, request: Request) -> Data:
        """`end_lost {}`: the source asked both sides: the rest of its memory is gone, it can never run on."""
        ctx = self._halves.known(request)
        ctx.note_once(GuestLost())
        ended = await self._host.hypervisor.end_lost(ctx.vm_uuid, ctx.migration.epoch)
        return Ended(ended=ended).to_wire()

    async def remove_volume_connection(self, request: Request) -> Data:
        """R3: disconnect the volumes and terminate their connections. Left to R4 while libvirt here is silent.

        Raises Conflict where the guest runs here, or phase 3 has begun.
        """
        nothing = ConnectionsRemoved(removed=False)
        if self._journal.get(request.migration_id) is None:
            return nothing.to_data()  # P3 never came; if it comes late, R4 has written the migration off
        known = self._halves.known(request)
        if known.history.closed:
            return nothing.to_data()  # undone already, or the guest was taken over while its source was dead
        if begun := [s.row for s in DESTINATION_POST.after_pivot if s.name in known.history.plans]:
            raise Conflict(
                f"{begun[0]} has begun on {self._host.name}: the guest is here, its volumes stay connected"
            )
        try:
            await refuse_if_used(known)
        except Temporary as error:
            return nothing.model_copy(update={"deferred": error.message}).to_data()
        ctx = self._halves.turn_back(known)
        async with self._halves.lock(ctx.migration.id):
            await self._runner.run(REMOVE_VOLUME_CONNECTION, backwards(ctx))
            return ConnectionsRemoved(removed=True).to_data()

    # ------------------------------------------------------------ casts

    def check_cast(self, request: Request) -> None:
        """What every cast to a destination carries. Raises BadRequest."""
        self._halves.migration(request)

    async def rollback(self, request: Request) -> None:
        """R4 arrived: R5-R7, whatever of them is left, then the report."""
        migration = self._halves.migration(request)
        if await self._false_claim(migration) is not None:
            self._report_forgotten(migration)
            return
        try:
            # not in the journal: accepted only to be closed, so that a late P3 is refused
            ctx = self._halves.turn_back(self._halves.context(migration))
        except Conflict:
            if self._journal.get(migration.id) is not None:
                raise
            # A newer migration of this VM was accepted here since: this one never was, and never can be.
            self._report_forgotten(migration)
            return
        async with self._halves.lock(migration.id):
            with journaled(ctx, "R4"):
                if ctx.history.closed or await self._settling.abandoned(ctx):
                    return
            await self._halves.undo(ctx)
            self._halves.finish(ctx, "R7")

    def _report_forgotten(self, migration: Migration) -> None:
        report = DestinationReport(row="R7", forgotten=True)
        self._halves.peer(migration).cast("destination_report", report.to_data(), key="R7-report")

    async def post_live_migration(self, request: Request) -> None:
        """F5 arrived: F6-F9, then the report."""
        migration = self._halves.migration(request)
        if self._journal.get(migration.id) is None:
            # F5 comes after P3 only. The source asks how this half ended, and records that it is not known.
            log.warning("a migration that came here is not in the journal: lost?", migration=migration.id)
            return
        try:
            ctx = self._halves.context(migration)
        except Conflict:
            if self._journal.get(migration.id) is not None:
                raise
            log.info("ignoring a cast about a migration that is no longer in this journal", migration=migration.id)
            return  # a repeat from long ago: its epoch is stale, and what was done has been reported
        async with self._halves.lock(migration.id):
            with journaled(ctx, "F5"):
                if ctx.history.closed or await self._settling.abandoned(ctx):
                    return
                here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
                if here.state is GuestState.PAUSED and not (here.ran or self._arrivals.ran(ctx)):
                    raise Temporary("the guest waits for its memory here: phase 3 has not begun")
            await self._runner.run(DESTINATION_POST.after_pivot, ctx, forever=True)
            self._halves.finish(ctx, "F9")

    # ------------------------------------------------------------ the agent's life

    def resume_all(self) -> None:
        """Look out again for the guests that an earlier life of this agent expected."""
        for migration, role in self._journal.open():
            if role is Role.DESTINATION:
                self._arrivals.watch(self._halves.context(migration))

    async def stop(self) -> None:
        """Look out no more."""
        await self._arrivals.stop()
