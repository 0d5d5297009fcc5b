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
from sterna.agent.destination_checks import DestinationChecks
from sterna.agent.peer import RpcPeer
from sterna.domain import untrusted
from sterna.domain.entries.base import Failure, StatusSet, Turned
from sterna.domain.entries.destination import TapsToMake, VifsPlugged, VmUpdated
from sterna.domain.entries.notes import (
    Abandoned,
    AnswerGiven,
    EndedIncoming,
    GuestLost,
    IncomingVm,
    ListeningAgain,
    PortReported,
    WroteOffPeer,
)
from sterna.domain.errors import BadRequest, Conflict, SternaError, Temporary
from sterna.domain.fencing import Decision, Survivor, without_source
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, GuestState, Observation, Vm
from sterna.domain.secrets import Need
from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.domain.whereabouts import GONE
from sterna.migration import secrets
from sterna.migration.context import Context, HostPorts
from sterna.migration.destination import media, rehearsal, taps, wiring
from sterna.migration.destination.prepare import pre_live_migration_result
from sterna.migration.destination.rollback import refuse_if_used
from sterna.migration.destination.taps import taps_made, unplug_taps
from sterna.migration.flow import DESTINATION, DESTINATION_POST, REMOVE_VOLUME_CONNECTION
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.rpc.outbox import Outbox
from sterna.saga.runner import Runner

log = structlog.get_logger(__name__)


class IncomingMigrations:
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

    async def take_medium(self, request: Request) -> Data:
        """`take_medium {path, offset, data}`: a piece of a medium, into the file that P8 made for it here.

        Raises Conflict for any other file, or once this half is undone."""
        ctx = self._known(request)
        async with self._lock(ctx.migration.id):
            return await media.take(ctx, request.params)

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

    async def observe_guest(self, request: Request) -> Data:
        """`observe_guest {vm}`: what this host's hypervisor says of it now."""
        seen = await self._observe(untrusted.named(request.params.get("vm"), "vm"))
        known = self._journal.get(request.migration_id)
        if known is not None and known[1] is Role.DESTINATION:
            ctx = self.context(known[0])
            seen = self._arrivals.remember(ctx, seen)
            return {
                "observation": seen.model_dump(mode="json"),
                "written_off": _written_off(ctx),
            }
        return {"observation": seen.model_dump(mode="json")}

    async def _observe(self, vm: str) -> Observation:
        """The hypervisor's word; UNKNOWN where it does not answer: what the journal remembers may still help."""
        try:
            return await self._host.hypervisor.observe(vm)
        except SternaError as error:
            return Observation(state=GuestState.UNKNOWN, reason=error.message)

    async def pre_live_migration(self, request: Request) -> Data:
        """P3: prepare everything (P4-P10); the answer is P11. Raises Conflict for a stale or closed migration."""
        migration, vm = self._migration(request), _vm(request)
        async with self._lock(migration.id):
            ctx = self.context(migration)
            if ctx.history.turned is not None or ctx.history.closed:
                raise Conflict(f"migration {migration.id} was rolled back on {self._host.name} already")
            ctx.brought = dict(request.params.get("secrets") or {})
            ctx.note_once(IncomingVm(vm=vm))
            await self._runner.run(DESTINATION.until_pivot, ctx)
            self._arrivals.watch(ctx)
            facts = await self._host.hypervisor.host()
            answer = AnswerGiven(**dict(pre_live_migration_result(ctx, facts)))
            ctx.note_once(answer)
            return answer.to_data()

    async def wait_vif_plugged(self, request: Request) -> Data:
        """P12: answer when every port made ahead is wired."""
        return await wiring.wait_wired(self._known(request))

    async def make_way(self, request: Request) -> Data:
        """`make_way {autostart}`: M4 is next; delete the taps made ahead, and keep their ports. Raises Conflict."""
        return await taps.make_way(self._known(request), bool(request.params.get("autostart")))

    async def rehearse(self, request: Request) -> Data:
        """`rehearse {xml, postcopy, tls}`: try, after P11, what M4 would need; changes nothing."""
        ctx, told = self._known(request), request.params
        wishes = {name: bool(told.get(name)) for name in ("postcopy", "tls")}
        return await rehearsal.rehearse_here(ctx, str(told.get("xml", "")), **wishes)

    def heard(self, event: Data) -> None:
        """Another service's report of a VM's port: noted where this host prepares for that VM, once per port."""
        try:
            report = PortReported.from_data(event)
        except ValueError:
            return  # another version's: nothing waits for it alone
        port = report.port
        for ctx in list(self._contexts.values()):
            expected = ctx.history.has(TapsToMake) and any(n.port_id == port for n in taps_made(ctx))
            if ctx.vm_uuid == report.vm and expected and not ctx.history.closed:
                ctx.note_once(report, f"{report.name}-{port}")

    async def guest_leaves(self, migration_id: str) -> None:
        """A hint from its source: it stands still there, and will run here or go on there."""
        ctx = self._contexts.get(migration_id)
        if ctx is not None and ctx.role is Role.DESTINATION and not ctx.history.closed:
            await self._arrivals.expect(ctx)

    async def end_incoming(self, request: Request) -> Data:
        """R0: the source asked both sides; end what waits for its memory here and never ran."""
        ctx = self._known(request)
        ended = await self._host.hypervisor.end_incoming(ctx.vm_uuid, ctx.migration.epoch)
        ctx.note(EndedIncoming(ended=ended))
        return {"ended": ended}

    async def open_recovery(self, request: Request) -> Data:
        """`open_recovery {}`: post-copy is about to begin; answer once a broken stream could be joined again.

        Raises Unreachable while it could not.
        """
        ctx = self._known(request)
        await self._host.hypervisor.open_recovery(ctx.vm_uuid)
        return {}

    async def listen_again(self, request: Request) -> Data:
        """`listen_again {address}`: the stream broke in post-copy; wait for the source's half.

        Raises Conflict where the guest is not in post-copy here, BadRequest for an address that is not ours.
        """
        ctx = self._known(request)
        address = str(request.params.get("address", ""))
        if address not in (self._host.address, *self._host.more_addresses):
            raise BadRequest(f"{address!r} is no migration address of {self._host.name}")
        uri = await self._host.hypervisor.listen_again(ctx.vm_uuid, ctx.migration.epoch, address)
        ctx.note(ListeningAgain(uri=uri))
        return {"uri": uri}

    async def end_lost(self, request: Request) -> Data:
        """`end_lost {}`: the source asked both sides: the rest of its memory is gone, it can never run on."""
        ctx = self._known(request)
        ctx.note_once(GuestLost())
        ended = await self._host.hypervisor.end_lost(ctx.vm_uuid, ctx.migration.epoch)
        return {"ended": ended}

    async def remove_volume_connection(self, request: Request) -> Data:
        """R3: disconnect the volumes and terminate their connections. Left to R4 while libvirt here is silent.

        Raises Conflict where the guest runs here, or phase 3 has begun.
        """
        if self._journal.get(request.migration_id) is None:
            return {"removed": False}  # P3 never came; if it comes late, R4 has written the migration off
        known = self._known(request)
        if known.history.closed:
            return {"removed": False}  # undone already, or the guest was taken over while its source was dead
        if begun := [s.row for s in DESTINATION_POST.after_pivot if s.name in known.history.plans]:
            raise Conflict(
                f"{begun[0]} has begun on {self._host.name}: the guest is here, its volumes stay connected"
            )
        try:
            await refuse_if_used(known)
        except Temporary as error:
            return {"removed": False, "deferred": error.message}
        ctx = self._turn(known)
        async with self._lock(ctx.migration.id):
            await self._runner.run(REMOVE_VOLUME_CONNECTION, _backwards(ctx))
            return {"removed": True}

    # ------------------------------------------------------------ casts

    def check_cast(self, request: Request) -> None:
        """What every cast to a destination carries. Raises BadRequest."""
        self._migration(request)

    async def rollback(self, request: Request) -> None:
        """R4 arrived: R5-R7, whatever of them is left, then the report."""
        migration = self._migration(request)
        try:
            ctx = self._turn(
                self.context(migration)
            )  # never heard of: accepted only to be closed, a late P3 is refused
        except Conflict:
            if self._journal.get(migration.id) is not None:
                raise
            # A newer migration of this VM was accepted here since: this one never was, and never can be.
            self._peer(migration).cast("destination_report", {"row": "R7"}, key="R7-report")
            return
        async with self._lock(migration.id):
            if ctx.history.closed or await self._abandoned(ctx):
                return
            await self._undo(ctx)
            self._finish(ctx, "R7")

    async def post_live_migration(self, request: Request) -> None:
        """F5 arrived: F6-F9, then the report."""
        migration = self._migration(request)
        try:
            ctx = self.context(migration)
        except Conflict:
            if self._journal.get(migration.id) is not None:
                raise
            log.info("a cast about a migration forgotten here", migration=migration.id)
            return  # a repeat from long ago: its epoch is stale, and what was done has been reported
        async with self._lock(migration.id):
            if ctx.history.closed or await self._abandoned(ctx):
                return
            here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
            if here.state is GuestState.PAUSED and not (here.ran or self._arrivals.ran(ctx)):
                raise Temporary("F5 has come, but the guest waits for its memory here: phase 3 has not begun")
            await self._runner.run(DESTINATION_POST.after_pivot, ctx, forever=True)
            self._finish(ctx, "F9")

    # ------------------------------------------------------------ when one of the two hosts was declared dead

    async def settle_alone(self, ctx: Context) -> Decision:
        """The source is dead and fenced: end this half by what is true here (ADR 7), if it can be told.

        The decision is journaled before it is acted on; a restart goes on with it.
        """
        if not ctx.history.has(VifsPlugged):
            ctx.abort.set()  # a preparation that is still under way stops at its next step
        async with self._lock(ctx.migration.id):
            decision = await self.decide_alone(ctx)
            if ctx.history.closed or decision.act in (Survivor.HOLD, Survivor.WAIT):
                return decision
            taken = decision.act is Survivor.TAKE_OVER
            ctx.write_off("completed" if taken else "failed", decision.why)
            if taken:
                await self._runner.run(DESTINATION_POST.after_pivot, _backwards(ctx), forever=True)
            else:
                await self._undo(self._turn(ctx))
            self._tell_end(ctx, Status.COMPLETED if taken else Status.FAILED, decision.why)
            self._finish(ctx, "F9" if taken else "R7")
            return decision

    async def refuse_migration(self, request: Request) -> Data:
        """`refuse_migration {migration}`: its source was declared dead before P3 came here. Closed unopened: a late
        P3 is refused, and the source learns why."""
        migration = self._migration(request)
        try:
            ctx = self.context(migration)
        except Conflict:
            return {"refused": True}  # its epoch is stale: P3 would be refused as well
        async with self._lock(migration.id):
            if ctx.history.plans or ctx.history.closed:
                return {"refused": ctx.history.closed}  # P3 has come after all
            ctx.write_off("failed", "nothing had been prepared")
            self._tell_end(self._turn(ctx), Status.FAILED, "nothing had been prepared")
            self._finish(ctx, "R7")
        return {"refused": True}

    async def decide_alone(self, ctx: Context) -> Decision:
        """What `settle_alone` would do now."""
        settled = ctx.history.find(WroteOffPeer)
        if settled is not None:
            taken = settled.outcome == "completed"
            return Decision(Survivor.TAKE_OVER if taken else Survivor.CLEAN_UP, settled.why)
        here = await ctx.observe_here()
        return without_source(here, epoch=ctx.migration.epoch, ran=self._arrivals.ran(ctx))

    def _tell_end(self, ctx: Context, status: Status, why: str) -> None:
        """The source's journal cannot say how it ended: this one does."""
        host = ctx.migration.source
        lost = "its own half is written off" if status is Status.COMPLETED else f"the guest was on {host} then"
        reason = f"{host} was declared dead; {why}; {lost}"
        ctx.write(Kind.STATUS, name=status, data=StatusSet(status=status, reason=reason).to_data())

    async def _abandoned(self, ctx: Context) -> bool:
        """Was this host declared dead with the guest on it? Then its half ends without being carried out.

        Asked only where the guest left a trace here and runs here no more: what is left may be the last of it.
        Nothing is started, and its definition and disks are kept.
        """
        here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        ours = here.state is GuestState.SHUTOFF and here.epoch == ctx.migration.epoch
        if here.state not in GONE or not (ours or self._arrivals.ran(ctx)):
            return False
        fate = await ctx.ask_fate()
        if fate is None:
            return False
        if here.state is GuestState.SHUTOFF:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, False)
        await unplug_taps(ctx)
        if fate.outcome == "failed":
            await self._runner.run(REMOVE_VOLUME_CONNECTION, _backwards(ctx), forever=True)
        ctx.note(Abandoned(outcome=fate.outcome, why=fate.why))
        self._close(ctx, "")
        return True

    async def _undo(self, ctx: Context) -> None:
        steps = DESTINATION.compensation(ctx.history.plans)
        await self._runner.run(steps, _backwards(ctx), forever=True)

    # ------------------------------------------------------------ the agent's life

    def resume_all(self) -> None:
        """Look out again for the guests that an earlier life of this agent expected."""
        for migration, role in self._journal.open():
            if role is Role.DESTINATION:
                self._arrivals.watch(self.context(migration))

    async def stop(self) -> None:
        """Look out no more."""
        await self._arrivals.stop()

    # ------------------------------------------------------------ contexts

    def _finish(self, ctx: Context, row: str) -> None:
        """Report first: a crash in between repeats the cast's handling, and the report is sent once by its key."""
        guest = ctx.history.find(VmUpdated)
        report = {
            "row": row,
            "written_off": _written_off(ctx),
            "guest_state": guest.power_state if guest else "",
            "guest_reason": (guest and guest.power_reason) or "",
        }
        ctx.peer.cast("destination_report", report, key=f"{row}-report")
        self._close(ctx, row)

    def _close(self, ctx: Context, row: str) -> None:
        ctx.write(Kind.CLOSED, row=row)
        self._arrivals.forget(ctx)
        self._contexts.pop(ctx.migration.id, None)
        self._locks.pop(ctx.migration.id, None)

    def _migration(self, request: Request) -> Migration:
        migration = untrusted.migration(request.params.get("migration") or {})
        if (migration.id, migration.epoch) != (request.migration_id, request.epoch):
            raise BadRequest("the message's migration id and epoch are not those of its migration")
        if migration.destination != self._host.name:
            raise BadRequest(f"migration {migration.id} goes to {migration.destination}, not to {self._host.name}")
        return migration

    def context(self, migration: Migration) -> Context:
        """The context of a migration, accepted now if it never was. Raises Conflict where it may not be."""
        if migration.id in self._contexts:
            return self._contexts[migration.id]
        accepted = self._journal.accept(migration, Role.DESTINATION)
        if accepted.epoch != migration.epoch:
            raise Conflict(f"migration {migration.id} was accepted with epoch {accepted.epoch}")
        history = History.read(self._journal.entries(migration.id))
        ctx = Context(
            accepted,
            Role.DESTINATION,
            self._host,
            self._peer(accepted),
            self._client,
            self._journal,
            history,
            on_write=self._on_write,
        )
        if not history.closed:
            self._contexts[migration.id] = ctx
        return ctx

    def open_context(self, migration_id: str) -> Context | None:
        """That of an open migration that this life of the agent has had to do with."""
        return self._contexts.get(migration_id)

    def _peer(self, migration: Migration) -> RpcPeer:
        return RpcPeer(self._client, self._outbox, migration, migration.source)

    def _known(self, request: Request) -> Context:
        """The context of a migration this host has accepted. Raises Conflict for any other."""
        known = self._journal.get(request.migration_id)
        if known is None or known[1] is not Role.DESTINATION:
            raise Conflict(f"{self._host.name} has not prepared for migration {request.migration_id}")
        if known[0].epoch != request.epoch:
            raise Conflict(f"stale epoch {request.epoch}: migration {known[0].id} has epoch {known[0].epoch}")
        return self.context(known[0])

    def _turn(self, ctx: Context) -> Context:
        """From here on this half is compensated: a preparation still under way stops at its next step."""
        if ctx.history.turned is None and not ctx.history.closed:
            ctx.write(
                Kind.COMPENSATING, data=Turned(error=Failure.of(SternaError("the source rolls back"))).to_data()
            )
            ctx.abort.set()
        return ctx

    def _lock(self, migration_id: str) -> asyncio.Lock:
        return self._locks.setdefault(migration_id, asyncio.Lock())


def _backwards(ctx: Context) -> Context:
    """The same context for compensation, which no abort stops. Called under the migration's lock."""
    ctx.abort.clear()
    return ctx


def _written_off(ctx: Context) -> Data | None:
    """What this half settled while the other host was thought dead."""
    settled = ctx.history.find(WroteOffPeer)
    return settled.to_data() if settled else None


def _vm(request: Request) -> Vm:
    """The VM in question. Raises BadRequest."""
    return untrusted.vm(request.params.get("vm") or {})


def _needs(request: Request) -> list[Need]:
    """The secrets in question. Raises BadRequest."""
    try:
        return [Need.model_validate(told) for told in request.params.get("needs", ())]
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{request.method}: these are no secrets' descriptions: {error}") from error
