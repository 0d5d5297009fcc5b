"""One agent: joins the ports, the flows and the bus. Made by `bootstrap.agent`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sterna.agent.answers import Answers
from sterna.agent.audit import Audit
from sterna.agent.audit_context import Messages
from sterna.agent.callers import Callers
from sterna.agent.condition import UNCHECKED, Condition, JournalChecks, no_warning
from sterna.agent.destination import IncomingMigrations
from sterna.agent.doctor import Doctor
from sterna.agent.fencing import Fencing
from sterna.agent.housekeeping import Housekeeping
from sterna.agent.incoming_halves import IncomingHalves
from sterna.agent.measuring import Measuring
from sterna.agent.metrics import AgentMetrics
from sterna.agent.revocation import Revocation
from sterna.agent.settling import Settling
from sterna.agent.signs_of_life import SignsOfLife
from sterna.agent.source import OutgoingMigrations
from sterna.agent.tuning import Tuning
from sterna.agent.vm_list import VmList
from sterna.domain.entries.destination_notes import Arrival
from sterna.domain.entries.notes import Saw, Waiting
from sterna.domain.errors import BadRequest, SternaError
from sterna.domain.hosts import HostFacts
from sterna.domain.journal import Entry, Kind, Migration
from sterna.domain.model import Data
from sterna.domain.trouble import Trouble
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import paused
from sterna.migration.context import HostPorts
from sterna.migration.source.handover import LEAVES, LEAVING
from sterna.ports.bus import Bus
from sterna.ports.doctor import NO_TOOLS, DoctorTools
from sterna.ports.identity import RevokedHere
from sterna.ports.records import Envelope, Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import MAX_MESSAGE_BYTES, Request
from sterna.rpc.outbox import Outbox
from sterna.rpc.presence import Beacon
from sterna.rpc.server import RpcServer
from sterna.rpc.subjects import host_topic
from sterna.saga.runner import FaultHook, Runner, no_fault

log = structlog.get_logger(__name__)

JOURNAL_PAGE = 500
"""Entries at once, at most."""
PAGE_BYTES = MAX_MESSAGE_BYTES // 2
"""A VM with 40 disks writes 100 kB in one migration: a page may end before the number of entries that its reader
asked for."""
LEAST_ENTRIES = 2
"""The reader asks for the last one it has, too, to see that it is still the same journal."""
HINT_EVERY_S = 0.25
"""Hints are batched: each one costs the controller a read and a write, and a step writes two entries."""
ANNOUNCED_AT_ONCE = frozenset({*(Saw.entry + event for event in LEAVES), Arrival.entry})
"""Notes of a guest's pause, and of its end: readers get the first while the pause lasts. In between, when the guest
needs the processors, no hint is sent."""


@dataclass(frozen=True)
class AgentParts:
    """What an agent is made of."""

    host: HostPorts
    journal: Journal
    bus: Bus
    boot: str
    fault_hook: FaultHook = no_fault
    checks: JournalChecks = UNCHECKED
    revoked: RevokedHere | None = None
    warning: Callable[[], Trouble | None] = no_warning
    """What somebody should see to before it keeps the host from taking part."""
    version: str = ""
    """Of Sterna, as the controllers are told; '' where it is not installed."""
    doctor: DoctorTools = NO_TOOLS


class Agent:
    """The daemon of one compute host."""

    def __init__(self, parts: AgentParts) -> None:
        host, journal, clock = parts.host, parts.journal, parts.host.clock
        self._host, self._journal, self._boot, self._version = host, journal, parts.boot, parts.version
        self.condition, self._warning = Condition(host, parts.checks), parts.warning
        self._client = RpcClient(parts.bus, host.name, clock)
        dead = self._client.dead_letters
        self._server = RpcServer(parts.bus, host.name, journal, clock, dead_letters=dead)
        self._outbox = Outbox(journal, parts.bus, host.name, clock)
        self._vms = VmList(host.hypervisor, self._client, parts.boot, clock)
        self._signs = SignsOfLife(self._client, self._outbox)
        self._beacon = Beacon(self._client, host_topic(host.name), self._facts)
        runner = Runner(clock, parts.fault_hook)
        self.source = OutgoingMigrations(host, journal, runner, self._client, self._outbox, self._wrote)
        self._halves = IncomingHalves(host, journal, runner, self._client, self._outbox, self._wrote)
        self._settling = Settling(self._halves)
        self.destination = IncomingMigrations(self._halves, self._settling)
        self.fencing = Fencing(self.source, self._halves, self._settling, self._client, clock)
        server = self._server
        messages = Messages(self._outbox.refused, server.aside, server.forget, lambda: dead.kept, dead.forget)
        self.audit = Audit(host, journal, self._client, self.source.tokens, messages)
        self.doctor = Doctor(host, parts.doctor, self._client, self.source.tokens)
        self._revocation = Revocation(parts.revoked)
        self._housekeeping = Housekeeping(host, journal, lambda: self._read_to)
        self.metrics = AgentMetrics(self.condition, journal, self._client, self._outbox)
        self.metrics.warning = parts.warning
        self._last_written = 0
        self._read_to = 0
        """Where the controller last read on from: it has everything before."""
        self._written = asyncio.Event()
        self._urgent = asyncio.Event()
        self._hinting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve, deliver what is left in the outbox, take up what is open. Raises Unreachable without a bus."""
        self._register()
        self._hinting = asyncio.create_task(self._hint())
        self.destination.resume_all()
        resumed = self.source.resume_all()
        self.fencing.resume_all()
        await self._server.start()
        await self._outbox.start()
        await self._client.listen("external.*", self._port_reported)
        await self._client.listen(f"{LEAVING}.*.*", self._guest_leaves)
        self._vms.start()
        await self._beacon.start()
        self._housekeeping.start()
        bus = self._client.bus_state()
        log.info("agent has started", host=self._host.name, resumed=resumed, bus=bus.why or "connected")

    async def stop(self) -> None:
        """Stop. Running copies go on in libvirt, and the journal has the state to continue from."""
        await self._housekeeping.stop()
        await self._beacon.stop()
        await self._vms.stop()
        await self.fencing.stop()
        await self.source.stop()
        await self.destination.stop()
        await self._server.stop()
        await self._outbox.stop()
        await self._signs.stop()
        if self._hinting is not None:
            self._hinting.cancel()

    def _register(self) -> None:
        server, source, destination = self._server, self.source, self.destination
        server.check_caller = Callers(self._journal).check
        answers = Answers(self._host, self._journal)
        server.method("ping", self._ping)
        server.method("describe_host", self._describe_host)
        server.method("list_vms", self._list_vms)
        server.method("show_vm", self._show_vm)
        server.method("journal_since", self._journal_since)
        measuring = Measuring(self._host.hypervisor, self._journal, self._host.clock)
        server.method("measure_load", measuring.measure_load)
        server.method("tune_migration", Tuning(self._host, self._journal, self._wrote).tune_migration)
        server.method("check_migration", source.check_migration)
        server.method("start_migration", source.start_migration)
        server.method("decline_migration", source.decline_migration)
        server.method("abort_migration", source.abort_migration)
        server.cast("destination_report", source.destination_report, source.check_report)
        server.cast("message_refused", self._message_refused, _check_refused)
        server.on_aside = self._refuse
        self._outbox.on_refused = self._was_refused
        self._outbox.on_waiting = self._signs.want
        server.method("check_destination", answers.check_destination)
        server.method("secrets_wanted", answers.secrets_wanted)
        server.method("sees_token", answers.sees_token)
        server.method("sees_file", answers.sees_file)
        server.method("digest", answers.digest)
        server.method("expect_stream", answers.expect_stream)
        server.method("take_medium", destination.take_medium)
        server.method("observe_guest", destination.observe_guest)
        server.method("pre_live_migration", destination.pre_live_migration)
        server.method("wait_vif_plugged", destination.wait_vif_plugged)
        server.method("make_way", destination.make_way)
        server.method("rehearse", destination.rehearse)
        server.method("switch_to_postcopy", source.switch_to_postcopy)
        server.method("pause_guest", source.pause_guest)
        server.method("open_recovery", destination.open_recovery)
        server.method("listen_again", destination.listen_again)
        server.method("end_lost", destination.end_lost)
        server.method("end_incoming", destination.end_incoming)
        server.method("remove_volume_connection", destination.remove_volume_connection)
        server.cast("rollback_live_migration_at_destination", destination.rollback, destination.check_cast)
        server.cast("post_live_migration_at_destination", destination.post_live_migration, destination.check_cast)
        self._register_controllers()

    def _register_controllers(self) -> None:
        """What only controllers ask, of the whole host."""
        server = self._server
        server.method("audit", self.audit.audit)
        server.method("examine", self.doctor.examine)
        server.method("take_revoked", self._revocation.take_revoked)
        server.method("refuse_migration", self._settling.refuse_migration)
        server.method("fencing_plan", self.fencing.plan)
        server.method("declare_dead", self.fencing.declare_dead)
        server.method("declare_alive", self.fencing.declare_alive)
        server.method("migration_ending", self.fencing.ending)
        server.method("migration_fate", self.fencing.fate)

    # ------------------------------------------------------------ what the controller asks

    async def _facts(self) -> Data:
        host = await self.condition.look()
        trouble, warning = self.condition.trouble, self._warning()
        return {
            "name": self._host.name,
            "host": self._described(host) if host is not None else None,
            "trouble": trouble.model_dump(mode="json") if trouble is not None else None,
            "warning": warning.model_dump(mode="json") if warning is not None else None,
            "boot": self._boot,
            "version": self._version,
            "journal_last": self._last_written,
            "vms": self._vms.mark(),
            "revoked": self._revocation.number,
            "bus_since": self._client.bus_state().since.isoformat(),
        }

    async def _ping(self, request: Request) -> Data:
        """A sign of life that needs nothing else to work: no libvirt, no disk."""
        return {"boot": self._boot}

    async def _describe_host(self, request: Request) -> Data:
        """With its CPU, which the beacons only have the id of."""
        described: Data = {"host": self._described(await self._host.hypervisor.host())}
        if request.sender == CONTROLLER_TOKEN:
            cpu = await self._host.hypervisor.own_cpu()
            described["cpu"] = cpu.model_dump(mode="json") if cpu is not None else None
        return described

    def _described(self, facts: HostFacts) -> Data:
        """With what its hypervisor does not know: what the cloud's services call it."""
        return facts.model_copy(update={"network_host": self._host.network_host}).model_dump(mode="json")

    async def _list_vms(self, request: Request) -> Data:
        return await self._vms.whole()

    async def _show_vm(self, request: Request) -> Data:
        vm = await self._host.hypervisor.vm(str(request.params.get("vm", "")))
        return {"vm": vm.model_dump(mode="json")}

    async def _journal_since(self, request: Request) -> Data:
        cursor = _number(request, "cursor", 0, least=0, most=2**63 - 1)
        limit = min(_number(request, "limit", JOURNAL_PAGE, least=1, most=2**31), JOURNAL_PAGE)
        entries: list[Entry] = []
        known: dict[str, Migration] = {}
        size = 0
        for entry in self._journal.since(cursor, limit):
            size += len(entry.model_dump_json())
            if entry.migration_id not in known and (found := self._journal.get(entry.migration_id)) is not None:
                known[entry.migration_id] = found[0]
                size += len(found[0].model_dump_json())
            if size > PAGE_BYTES and len(entries) >= LEAST_ENTRIES:
                break
            entries.append(entry)
        if entries:  # a cursor beyond the end is about another journal: nothing of this one has been read
            self._read_to = cursor
        return {
            "entries": [e.model_dump(mode="json") for e in entries],
            "migrations": [m.model_dump(mode="json") for m in known.values()],
            "last": entries[-1].seq if entries else cursor,
        }

    # ------------------------------------------------------------ messages that cannot be handled

    def _refuse(self, envelope: Envelope, why: str) -> None:
        """A cast was set aside here: notify its sender, which may wait."""
        if envelope.method == "message_refused":
            return
        refusal = Envelope(
            id=f"{envelope.sender}/{envelope.id}/refused"[-255:],
            to=envelope.sender,
            method="message_refused",
            migration_id=envelope.migration_id,
            epoch=envelope.epoch,
            params={"method": envelope.method, "why": why[:1000]},
        )
        try:
            self._outbox.put(refusal)
        except SternaError as error:
            log.warning(
                "the sender of a cast cannot be notified",
                sender=envelope.sender,
                error=error.message,
            )

    async def _message_refused(self, request: Request) -> None:
        """Cast `message_refused {method, why}`: the other host will not do what it was sent."""
        self._note_refused(request.migration_id, request.sender, request.params["method"], request.params["why"])

    def _was_refused(self, envelope: Envelope, why: str) -> None:
        with contextlib.suppress(SternaError):  # a full disk: the audit reports it as well
            self._note_refused(envelope.migration_id, envelope.to, envelope.method, why)

    def _note_refused(self, migration_id: str, host: str, method: str, why: str) -> None:
        ctx = self.source.context(migration_id) or self._halves.open_context(migration_id)
        if ctx is not None and ctx.peer_name == host:
            reason = f"{host} cannot do what it was sent ({method}): {why}"
            ctx.note_once(Waiting(why=reason), f"-refused-{method}")

    # ------------------------------------------------------------ hints

    async def _port_reported(self, topic: str, data: Data) -> None:
        """Another service reports an event of a VM."""
        self.destination.port_reported(data)

    async def _guest_leaves(self, topic: str, data: Data) -> None:
        """A guest is paused on its source: only a hint of that source counts."""
        _, host, migration_id = topic.split(".", 2)
        ctx = self._halves.open_context(migration_id)
        if ctx is not None and ctx.peer_name == host:
            await self.destination.guest_leaves(migration_id)

    def _wrote(self, entry: Entry) -> None:
        self._last_written = entry.seq
        self.metrics.totals.wrote(entry)
        self._written.set()
        if entry.kind in (Kind.ACCEPTED, Kind.STATUS, Kind.CLOSED) or entry.name in ANNOUNCED_AT_ONCE:
            self._urgent.set()

    async def _hint(self) -> None:
        """Announce that there is more to read: a change of status at once, steps in batches."""
        while True:
            await self._written.wait()
            if not self._urgent.is_set():
                await paused(self._host.clock, HINT_EVERY_S, self._urgent)
            self._written.clear()
            self._urgent.clear()
            try:
                with own_cancellation_only():
                    await self._client.announce(f"journal.{self._host.name}", {"last": self._last_written})
            except Exception:
                log.exception("a hint was not sent")


def _check_refused(request: Request) -> None:
    if not all(isinstance(request.params.get(key), str) for key in ("method", "why")):
        raise BadRequest("message_refused needs `method` and `why`, two strings")


def _number(request: Request, key: str, default: int, *, least: int, most: int) -> int:
    """A whole number within bounds: SQLite takes a negative limit for none. Raises BadRequest."""
    value = request.params.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise BadRequest(f"{request.method}: {key} is a whole number from {least} to {most}")
    return value
