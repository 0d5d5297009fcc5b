"""`sterna agent`: the process of one compute host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import structlog

from sterna.adapters.files.state_dir import StateDir
from sterna.adapters.metrics.exposition import Exposition
from sterna.adapters.nats.bus import NatsBus
from sterna.adapters.sql.journal import SqlJournal
from sterna.adapters.stderr import log_to_stderr
from sterna.agent.condition import JournalChecks, no_warning
from sterna.agent.daemon import Agent, AgentParts
from sterna.agent.duplicate_name import OtherAgents, refuse_duplicate_name
from sterna.agent.faults import FaultFile
from sterna.bootstrap.doctor import doctor_tools
from sterna.bootstrap.host import host_ports
from sterna.bootstrap.identity import check_own
from sterna.bootstrap.metrics import MetricsServer
from sterna.bootstrap.pki import RevokedForLibvirt, renew_copies
from sterna.bootstrap.process import (
    DISK_FIX,
    bus_tls,
    join_bus,
    wait_for_stop_signal,
    warn_when_slow,
)
from sterna.bootstrap.renewal import watch_of, watching
from sterna.bootstrap.state_folder import alone_in
from sterna.config import AgentSettings, load
from sterna.domain.trust.identities import Kind
from sterna.joining import Watch
from sterna.kit.clock import SystemClock
from sterna.kit.loop import run as run_on_loop
from sterna.kit.version import installed
from sterna.ports.clock import Clock
from sterna.ports.metrics import Scraped
from sterna.rpc.client import RpcClient
from sterna.saga.runner import no_fault

log = structlog.get_logger(__name__)

STOPPING_S = 10.0
"""How long a stopping agent waits for work in progress to clean up. systemd kills it after 90 s."""


async def _stopped(agent: Agent) -> None:
    """Once it has, or what is under way there does not end: clean-up on a dead file system, perhaps. Then it is
    cancelled once more, and left."""
    stopping = asyncio.create_task(agent.stop(), name="stop")
    await asyncio.wait({stopping}, timeout=STOPPING_S)
    if stopping.done():
        stopping.result()
    else:
        log.warning("work in progress did not stop in time; it resumes from the journal after a restart")
        stopping.cancel()


def show_again(bus: NatsBus, settings: AgentSettings, metrics: MetricsServer) -> Callable[[], None]:
    """What shows a new certificate to the bus and to Prometheus, and gives libvirt and QEMU theirs where it is of
    Sterna's own CA."""

    def show() -> None:
        bus.use_tls(bus_tls(settings.identity.bus_tls(settings.bus.tls), settings.bus.url))
        metrics.read_again()
        if settings.identity.enrol == "sterna":
            renew_copies(settings.identity.folder)

    return show


def scraped(agent: Agent, clock: Clock, watch: Watch | None) -> Scraped:
    """What Prometheus reads of this agent."""
    agent.metrics.version = installed()
    if watch is not None:
        agent.metrics.expires = lambda: watch.valid_until
    return Exposition(agent.metrics.families, clock)


async def _run(settings: AgentSettings, metrics: MetricsServer) -> None:
    """Until SIGTERM. Raises as `run_agent`."""
    boot = uuid4().hex
    clock = SystemClock()
    fault_hook = FaultFile(settings.test.fault_file).fault_hook if settings.test.fault_file else no_fault
    path = settings.state_dir / "journal.db"
    with warn_when_slow(f"the journal {path}", DISK_FIX):
        journal = SqlJournal.at(path, clock=clock, boot=boot)
    bus = await join_bus(settings.bus, f"agent {settings.host}", settings.host, settings.identity)
    watch = watch_of(settings.identity, settings.bus.tls, clock, show_again(bus, settings, metrics))
    parts = AgentParts(
        host=host_ports(settings),
        journal=journal,
        bus=bus,
        boot=boot,
        fault_hook=fault_hook,
        checks=JournalChecks(StateDir(settings.state_dir).trouble, journal.check_writable),
        revoked=RevokedForLibvirt(settings.identity.folder) if settings.identity.enrol == "sterna" else None,
        doctor=doctor_tools(settings),
        warning=watch.warning if watch is not None else no_warning,
        version=installed(),
    )
    client = RpcClient(bus, settings.host, clock)
    await refuse_duplicate_name(client, settings.host, parts.host.hypervisor)
    await (agent := Agent(parts)).start()
    await (others := OtherAgents(client, settings.host, boot)).start()
    beside = [*watching(bus, watch, agent.condition.words), metrics.run(scraped(agent, clock, watch))]
    tasks = [asyncio.create_task(work) for work in beside]
    await wait_for_stop_signal(others.found)
    for task in tasks:
        task.cancel()
    log.info("stopping; running copies continue", host=settings.host)
    await _stopped(agent)
    await bus.close()
    if others.conflict is not None:
        raise others.conflict


def run_agent(config: Path) -> None:
    """`sterna agent`: run until SIGTERM. A copy under way goes on in libvirt and is joined by the next life.

    Raises BadRequest for wrong settings, Permanent for a damaged journal, Conflict where another agent has it, or
    another host's agent has this name.
    """
    log_to_stderr()
    os.umask(0o077)
    settings = load(AgentSettings, config)
    log_to_stderr(settings.log_level, settings.log_format)
    addresses = (settings.migration.address, *settings.migration.more_addresses)
    check_own(settings.identity, Kind.AGENT, settings.host, addresses)
    metrics = MetricsServer(settings.metrics, settings.identity)
    with ExitStack() as held:
        with warn_when_slow(f"state_dir {settings.state_dir}", DISK_FIX):
            held.enter_context(alone_in(settings.state_dir))
        run_on_loop(_run(settings, metrics))
