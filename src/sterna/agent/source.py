"""The source side: accepts migrations, drives them, and takes them up again after a restart.

The journal is the per-VM lock and the truth; this class only holds the tasks of this agent's life.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog

from sterna.agent.params import migration_options, required_text
from sterna.agent.peer import RpcPeer
from sterna.agent.source_checks import SourceChecks
from sterna.agent.tokens import CheckTokens
from sterna.domain.entries.base import StatusSet
from sterna.domain.entries.notes import (
    AbortAsked,
    AnswerReceived,
    CopySucceeded,
    DestinationReport,
    PauseAsked,
    PostcopyAsked,
    RunsThere,
    Saw,
    WrittenOffByPeer,
)
from sterna.domain.entries.source import Copied
from sterna.domain.errors import BadRequest, Conflict, NotFound, Refused, SternaError, Temporary
from sterna.domain.fencing import WriteOff
from sterna.domain.hosts import HostFacts
from sterna.domain.journal import LONGEST_PERMIT, LONGEST_REQUESTER, Entry, Kind, Migration, Role
from sterna.domain.model import Data, Refusal, Vm
from sterna.domain.plain_text import printable
from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context, HostPorts
from sterna.migration.flow import REHEARSAL, SOURCE
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.rpc.outbox import Outbox
from sterna.saga.runner import Runner

WAITING_DRIVE = "-drive"
"""Which note of the family `Waiting`: why nothing is done for a migration."""
DRIVE_AGAIN_S = 10.0

log = structlog.get_logger(__name__)


class OutgoingMigrations:
    """All migrations that leave this host."""

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
        self._checks = SourceChecks(host, journal, client)
        self._contexts: dict[str, Context] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._accepting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By migration, while it is requested."""
        self._declined: set[str] = set()
        """Of this life: a call does not outlive the agent that it was sent to."""

    # ------------------------------------------------------------ RPC methods

    async def check_migration(self, request: Request) -> Data:
        """`check_migration {vm, destination, options}`: the VM and every reason why not."""
        vm, _, refusals = await self._check(request)
        return {"vm": vm.model_dump(mode="json"), "refusals": [r.model_dump() for r in refusals]}

    async def _check(self, request: Request) -> tuple[Vm, HostFacts | None, list[Refusal]]:
        options = migration_options(request)
        return await self._checks.check(
            required_text(request, "vm"), required_text(request, "destination"), options.wanted, options.addresses
        )

    async def start_migration(self, request: Request) -> Data:
        """`start_migration {id, vm, destination, options}`: accept it, answer, and drive it from here on.

        A repeated id waits for the first request and gets the same migration: so a refusal is final. Raises Refused
        with every reason, or Conflict.
        """
        lock = self._accepting.setdefault(required_text(request, "id"), asyncio.Lock())
        async with lock:
            return await self._start(request)

    async def decline_migration(self, request: Request) -> Data:
        """`decline_migration {id}`: never accept it, also if it is being checked now. One that is accepted already
        stays accepted."""
        self._declined.add(required_text(request, "id"))
        return {}

    async def _start(self, request: Request) -> Data:
        known = self._journal.get(required_text(request, "id"))
        if known is not None:
            return self._known(known[0], known[1])
        vm, facts, refusals = await self._check(request)
        if request.params["id"] in self._declined:
            raise Conflict(f"migration {request.params['id']} was given up", fix="request it with a new ID")
        holder = self._journal.holder(vm.uuid)
        if holder is not None and holder.id != request.params["id"]:
            raise Conflict(f"{vm.name} is in migration {holder.id} already", fix="wait for it, or abort it")
        if refusals or facts is None:
            raise Refused(refusals)
        migration = self._journal.accept(self._proposal(request, vm, facts), Role.SOURCE)
        if migration.id not in self._tasks:
            self._drive(migration, accepted_ms=self._host.clock.monotonic_ms())
        return {"migration": migration.model_dump(mode="json"), "repeated": False}

    async def abort_migration(self, request: Request) -> Data:
        """`abort_migration {id}`: before the pivot it rolls back; after it, Conflict. Raises Temporary while the
        journal cannot be read."""
        wanted = required_text(request, "id")
        known = self._journal.get(wanted)
        if known is None or known[1] is not Role.SOURCE:
            raise NotFound(f"no migration {wanted} starts on {self._host.name}")
        history = History.read(self._journal.entries(wanted))
        if history.turned_back is not None:
            return {"accepted": True}  # on its way back already
        left = history.has(CopySucceeded) or history.has(Saw, "suspended-postcopy") or history.has(RunsThere)
        if history.closed or history.has(Copied) or left:
            raise Conflict(
                f"{known[0].vm_name} runs on {known[0].destination} already",
                fix="migrate it back if you want it here",
            )
        ctx = self._contexts.get(wanted)
        if ctx is None:
            raise Temporary(f"nothing drives migration {wanted} now", fix="try again in a moment")
        ctx.note_once(AbortAsked())
        ctx.abort.set()
        return {"accepted": True}

    async def switch_to_postcopy(self, request: Request) -> Data:
        """`switch_to_postcopy {id}`: as soon as libvirt can; idempotent.

        Raises NotFound; Conflict where it was not permitted, is a rehearsal, or is past the copy.
        """
        ctx = self._being_copied(request)
        if not ctx.postcopy:
            fix = "start it with --may postcopy"
            raise Conflict(
                f"the migration of {ctx.migration.vm_name} was started without permission for post-copy", fix=fix
            )
        ctx.note_once(PostcopyAsked())
        return {"accepted": True}

    async def pause_guest(self, request: Request) -> Data:
        """`pause_guest {id}`: from the next sample on, the guest is paused until the rest is copied; idempotent.

        Raises NotFound; Conflict where it is a rehearsal, or is past the copy.
        """
        self._being_copied(request).note_once(PauseAsked())
        return {"accepted": True}

    def _being_copied(self, request: Request) -> Context:
        """The migration of the request's `id`. Raises NotFound; Conflict where it will not be copied any more."""
        wanted = required_text(request, "id")
        ctx = self._contexts.get(wanted)
        if ctx is None:
            raise NotFound(f"no open migration {wanted} starts on {self._host.name}")
        name = ctx.migration.vm_name
        if ctx.migration.options.rehearse:
            raise Conflict(f"this is a rehearsal: {name} stays where it is")
        history = ctx.history
        if history.turned_back is not None or ctx.abort.is_set():
            raise Conflict(f"the migration of {name} is being rolled back")
        if history.has(Copied):
            raise Conflict(f"{name} runs on {ctx.migration.destination} already")
        return ctx

    def check_report(self, request: Request) -> None:
        """What a report carries. Raises BadRequest."""
        if request.params.get("row") not in ("F9", "R7"):
            raise BadRequest("destination_report needs `row`, F9 or R7")
        try:
            WriteOff.model_validate(request.params.get("written_off") or {"outcome": "", "why": ""})
            DestinationReport.from_data(request.params)
        except ValueError as error:
            raise BadRequest(f"destination_report cannot be read: {error}") from error

    async def destination_report(self, request: Request) -> None:
        """Cast `destination_report {row}`: the destination has finished F9 or R7. Raises Temporary, so that it is
        kept, where the migration is open and nothing drives it."""
        ctx = self._contexts.get(request.migration_id)
        if ctx is None and any(m.id == request.migration_id for m, _ in self._journal.open()):
            raise Temporary(f"nothing drives migration {request.migration_id} now", fix="restart this agent")
        if ctx is None or ctx.history.closed:
            return  # a repeat after the end
        report = DestinationReport.from_data(request.params)
        if report.forgotten and not ctx.history.has(AnswerReceived):  # as far as is known, P3 never got there
            report = report.model_copy(update={"forgotten": False})
        if report.written_off:  # this host was declared dead in between
            ctx.note_once(WrittenOffByPeer(**dict(report.written_off)))
        ctx.note_once(report, report.row, row=report.row)

    @property
    def tokens(self) -> CheckTokens:
        """The tokens of this host's checks."""
        return self._checks.tokens

    def context(self, migration_id: str) -> Context | None:
        """What drives this migration now; None where nothing does."""
        return self._contexts.get(migration_id)

    # ------------------------------------------------------------ tasks

    def resume_all(self) -> int:
        """Take up every open migration of the journal; how many there were. Sweeps what old checks left."""
        self._checks.tokens.start()
        mine = [m for m, role in self._journal.open() if role is Role.SOURCE]
        for migration in mine:
            log.info("resuming a migration from the journal", migration=migration.id, vm=migration.vm_name)
            self._drive(migration)
        return len(mine)

    async def stop(self) -> None:
        """Stop driving; libvirt goes on copying, the journal stays as it is."""
        await self._checks.tokens.stop()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _drive(self, migration: Migration, accepted_ms: float | None = None) -> None:
        """Until it has ended. It is accepted: an error here must not look as if it were not."""
        ctx = self._opened(migration, accepted_ms)
        driving = self._to_the_end(migration, ctx, accepted_ms)
        task = self._tasks[migration.id] = asyncio.create_task(driving, name=f"migration-{migration.id}")
        task.add_done_callback(lambda done: self._ended(migration.id, done))

    def _opened(self, migration: Migration, accepted_ms: float | None) -> Context | None:
        """None where the journal cannot be read now."""
        try:
            history = History.read(self._journal.entries(migration.id))
        except Exception as error:
            bug = not isinstance(error, SternaError)
            log.warning("a migration waits for the journal", migration=migration.id, why=str(error), exc_info=bug)
            return None
        peer = RpcPeer(self._client, self._outbox, migration, migration.destination)
        ctx = Context(
            migration,
            Role.SOURCE,
            self._host,
            peer,
            self._client,
            self._journal,
            history,
            on_write=self._on_write,
            accepted_ms=accepted_ms,
        )
        if history.status is None:
            with contextlib.suppress(SternaError):  # a full disk: without the entry it is `queued`, too
                queued = StatusSet(status=Status.QUEUED, reason="accepted")
                ctx.write(Kind.STATUS, name=Status.QUEUED, data=queued.to_data())
        if history.has(AbortAsked):
            ctx.abort.set()
        self._contexts[migration.id] = ctx
        return ctx

    async def _to_the_end(self, migration: Migration, ctx: Context | None, accepted_ms: float | None) -> None:
        while ctx is None:
            await self._host.clock.sleep(DRIVE_AGAIN_S)
            ctx = self._opened(migration, accepted_ms)
        flow = REHEARSAL if migration.options.rehearse else SOURCE
        attempts = Attempts(ctx, "driving the migration", WAITING_DRIVE, row="")
        while True:
            with attempts.attempt():  # no known error ends it early: this is for bugs
                await self._runner.drive(flow, ctx)
                return
            await self._host.clock.sleep(DRIVE_AGAIN_S)

    def _ended(self, migration_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(migration_id, None)
        self._contexts.pop(migration_id, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a migration's task failed", migration=migration_id, exc_info=task.exception())

    def _known(self, migration: Migration, role: Role) -> Data:
        if role is not Role.SOURCE:
            raise Conflict(f"migration {migration.id} arrives here, it does not start here", fix="use another ID")
        if migration.id not in self._tasks and any(m.id == migration.id for m, _ in self._journal.open()):
            self._drive(migration)
        return {"migration": migration.model_dump(mode="json"), "repeated": True}

    def _proposal(self, request: Request, vm: Vm, facts: HostFacts) -> Migration:
        return Migration(
            id=required_text(request, "id"),
            epoch=vm.epoch,  # the journal issues the next one
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            source=self._host.name,
            destination=facts.name,
            source_address=self._host.address,
            destination_address=facts.address,
            options=migration_options(request).agreed(
                memory_bytes=vm.ordinary_bytes, network_hosts=(self._host.network_host, facts.network_host)
            ),
            created_at=self._host.clock.now().isoformat(),
            requested_by=_requested_by(request),
            permit=_permit(request),
        )


def _requested_by(request: Request) -> str:
    """Who asked the controller for it; '' where it does not say."""
    name = request.params.get("requested_by", "")
    return printable(name)[:LONGEST_REQUESTER] if isinstance(name, str) else ""


def _permit(request: Request) -> str:
    """The controller's, for the destination; '' where it has none. Raises BadRequest."""
    permit = request.params.get("permit", "")
    if not isinstance(permit, str) or len(permit) > LONGEST_PERMIT:
        raise BadRequest(f"{request.method}: permit is a string of at most {LONGEST_PERMIT} characters")
    return permit
