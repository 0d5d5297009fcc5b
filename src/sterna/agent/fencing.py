"""An operator declares another host dead and fenced: this host ends their common migrations (ADR 7).

The declaration is journaled per migration: it survives a restart of this agent, and does not hold for later
migrations. It replaces the dead host's answers only: as soon as that host answers again, nothing more is done on
it.
"""

from __future__ import annotations

import asyncio

from sterna.agent.incoming_halves import IncomingHalves
from sterna.agent.settling import Settling
from sterna.agent.source import OutgoingMigrations
from sterna.domain.calls import Ending, Fate
from sterna.domain.entries.notes import PeerDeclared, Waiting, WroteOffPeer
from sterna.domain.entries.source import Copied, SourceProven
from sterna.domain.errors import BadRequest, Refused, SternaError, Temporary, Undelivered, Unknown
from sterna.domain.fencing import Survivor, without_destination
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import Data, GuestState, Refusal
from sterna.domain.step import History
from sterna.domain.whereabouts import Finding, Verdict
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source.dead_peer import source_facts
from sterna.ports.clock import Clock
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request

AGAIN_S = 2.0
"""Between two looks of a half that cannot be ended yet."""
SIGN_OF_LIFE_S = 2.0
"""A running agent answers in milliseconds; heartbeats come every second."""

_SOURCE_PLAN = {
    Verdict.STAYED: "roll back: {why}",
    Verdict.STRANDED: "set the guest running here again and roll back: {why}",
    Verdict.ENDED_AT_SOURCE: "roll back, the VM stopped: {why}",
    Verdict.ENDED_AT_DESTINATION: "end it as completed, starting nothing and keeping what is left here: {why}",
    Verdict.DOUBT: "hold: {why}",
    Verdict.WAIT: "wait: {why}",
}
_DESTINATION_PLAN = {
    Survivor.TAKE_OVER: "take the guest over and end it as completed: {why}",
    Survivor.CLEAN_UP: "remove all that was prepared here, unfinished copies of disks included, and end it as "
    "failed: {why}",
    Survivor.HOLD: "hold: {why}",
    Survivor.WAIT: "wait: {why}",
}


class Fencing:
    """The RPC methods about dead hosts, and the tasks that end destination halves alone."""

    def __init__(
        self,
        source: OutgoingMigrations,
        halves: IncomingHalves,
        settling: Settling,
        client: RpcClient,
        clock: Clock,
    ) -> None:
        self._journal, self._client, self._clock = halves.journal, client, clock
        self._source, self._halves, self._settling = source, halves, settling
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # ------------------------------------------------------------ RPC methods

    async def plan(self, request: Request) -> Data:
        """`fencing_plan {host}`: per open migration with that host, what would be done here, and whether that
        host answers. Changes nothing."""
        common = self._common(_host(request))
        answers = bool(common) and await self._answers(_host(request))
        return {"migrations": [await self._planned(m, r) for m, r in common], "answers": answers}

    async def ending(self, request: Request) -> Data:
        """`migration_ending {}`: how that migration ended here: `open`, `unknown`, or the row that closed it."""
        if self._journal.get(request.migration_id) is None:
            return Ending(ending="unknown").to_wire()
        entries = self._journal.entries(request.migration_id)
        return Ending(ending=next((e.row for e in entries if e.kind is Kind.CLOSED), "open")).to_wire()

    async def declare_dead(self, request: Request) -> Data:
        """`declare_dead {host, at}`: it is gone and fenced. May be repeated. Raises Refused if it answers here,
        Temporary where the journal of one of the migrations cannot be read now."""
        host, done = _host(request), []
        common = self._common(host)
        if common and await self._answers(host):
            fix = "to declare it dead anyway, power it off first"
            raise Refused([Refusal(code="host-answers", message=f"the agent of {host} answers", fix=fix)])
        for migration, role in common:
            done.append(await self._planned(migration, role))
            ctx = self._context(migration, role)
            if ctx is None and any(m.id == migration.id for m, _ in self._journal.open()):
                raise Temporary(f"nothing drives migration {migration.id} now", fix="declare the host dead again")
            if ctx is not None and not ctx.peer_fenced:
                ctx.note(PeerDeclared(dead=True, host=host, at=str(request.params.get("at", ""))))
            if role is Role.DESTINATION and ctx is not None:
                self._settle(ctx)
        return {"migrations": done}

    async def declare_alive(self, request: Request) -> Data:
        """`declare_alive {host}`: take the declaration back where nothing has been done on it yet."""
        back = []
        for migration, role in self._common(_host(request)):
            ctx = self._context(migration, role)
            if ctx is not None and ctx.peer_fenced and not ctx.history.has(WroteOffPeer):
                ctx.note(PeerDeclared(dead=False, why="taken back by an operator"))
                back.append(migration.id)
        return {"migrations": back}

    async def fate(self, request: Request) -> Data:
        """`migration_fate {}`: did this half settle the migration because the asking host was declared dead?"""
        known = self._journal.get(request.migration_id)
        if known is None or request.sender not in (known[0].source, known[0].destination):
            return Fate(written_off=None).to_wire()
        history = History.read(self._journal.entries(request.migration_id))
        return Fate(written_off=history.find(WroteOffPeer)).to_wire()

    # ------------------------------------------------------------ the agent's life

    def resume_all(self) -> None:
        """Continue with the halves that this agent had to end alone before it was restarted."""
        for migration, role in self._journal.open():
            if role is Role.DESTINATION:
                ctx = self._halves.context(migration)
                if ctx.peer_fenced:
                    self._settle(ctx)

    async def stop(self) -> None:
        """End nothing more in this life."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ details

    def _common(self, host: str) -> list[tuple[Migration, Role]]:
        """Open migrations whose other half is that host's."""
        return [
            (m, role)
            for m, role in self._journal.open()
            if host == (m.destination if role is Role.SOURCE else m.source)
        ]

    def _context(self, migration: Migration, role: Role) -> Context | None:
        return self._source.context(migration.id) if role is Role.SOURCE else self._halves.context(migration)

    async def _planned(self, migration: Migration, role: Role) -> Data:
        ctx = self._context(migration, role)
        will = "nothing: it has just ended"
        if ctx is not None and role is Role.DESTINATION:
            decision = await self._settling.decide_alone(ctx)
            will = _DESTINATION_PLAN[decision.act].format(why=decision.why)
        elif ctx is not None:
            finding = await _source_finding(ctx)
            will = _SOURCE_PLAN[finding.verdict].format(why=finding.why)
        return {"id": migration.id, "vm": migration.vm_name, "role": role, "will": will}

    async def _answers(self, host: str) -> bool:
        """Does its agent say anything at all?"""
        try:
            await self._client.call(host, "ping", {}, silence_s=SIGN_OF_LIFE_S)
        except (Undelivered, Unknown):
            return False
        except SternaError:
            return True  # it answered, if only with an error
        return True

    def _settle(self, ctx: Context) -> None:
        key = ctx.migration.id
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._until_settled(ctx), name=f"end {key} alone")

    async def _until_settled(self, ctx: Context) -> None:
        attempts = Attempts(ctx, "ending one half without the other host")
        noting = Attempts(ctx, "noting why one half does not end")
        try:
            while ctx.peer_fenced and not ctx.history.closed:
                why = ""
                with attempts.attempt():
                    why = await self._settle_unless_alive(ctx)
                if ctx.peer_fenced and not ctx.history.closed:
                    with noting.attempt():  # neither a full disk nor a bug ends this: noted the next time
                        ctx.note_change(Waiting(why=why or attempts.reason))
                    await self._clock.sleep(AGAIN_S)
        finally:
            # no await since the last check, so that a declaration that comes now begins another task
            self._tasks.pop(ctx.migration.id, None)

    async def _settle_unless_alive(self, ctx: Context) -> str:
        """One try; why it is not over. If the other host answers again, the declaration no longer holds."""
        if not ctx.history.has(WroteOffPeer) and await self._answers(ctx.peer_name):
            ctx.peer_answered()
            return ""
        return (await self._settling.settle_alone(ctx)).why


async def _source_finding(ctx: Context) -> Finding:
    if ctx.history.has(Copied) and ctx.history.turned_back is None:
        return Finding(Verdict.ENDED_AT_DESTINATION, "the guest is on the other host")
    if ctx.history.has(SourceProven):
        return Finding(Verdict.STAYED, "only the other host's clean-up is still open")
    here = await ctx.observe_here()
    if here.state is GuestState.RUNNING and not here.job_active:
        return Finding(Verdict.STAYED, "the guest runs here")
    return without_destination(here, source_facts(ctx))


def _host(request: Request) -> str:
    host = request.params.get("host")
    if not isinstance(host, str) or not host:
        raise BadRequest(f"{request.method} needs 'host', a string")
    return host
