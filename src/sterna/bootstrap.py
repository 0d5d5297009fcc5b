"""The composition root: the only place that chooses adapters. Called by `__main__`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import structlog

from sterna.adapters.files.state_dir import StateDir
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.images.glance import GlanceImages
from sterna.adapters.libvirt.hypervisor import HostSettings, LibvirtHypervisor
from sterna.adapters.libvirt.qemu.handshake import TlsHandshake
from sterna.adapters.libvirt.qemu.probe import PlainProbe
from sterna.adapters.nats.bus import NatsBus
from sterna.adapters.network.native import NativeNetwork
from sterna.adapters.network.neutron.network import NeutronNetwork
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.sealing import HpkeSealing
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import is_away
from sterna.adapters.sql.journal import SqlJournal
from sterna.adapters.stderr import log_to_stderr
from sterna.adapters.systemd import show_state
from sterna.adapters.vif.plugs import Plugs
from sterna.adapters.volumes.cinder.volumes import CinderVolumes, Connector
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.adapters.volumes.tgt import TgtVolumes
from sterna.agent.condition import JournalChecks
from sterna.agent.daemon import Agent, AgentParts
from sterna.agent.faults import FaultFile
from sterna.agent.namesake import refuse_namesake
from sterna.api.app import create_app
from sterna.api.server import Server
from sterna.config import AgentSettings, BusSettings, BusTls, ControllerSettings, load
from sterna.controller.controller import Controller
from sterna.domain.addresses import filled
from sterna.domain.errors import BadRequest, Conflict, Permanent, Unreachable
from sterna.kit.clock import SystemClock
from sterna.kit.loop import run as run_on_loop
from sterna.migration.context import HostPorts
from sterna.ports.network import Network
from sterna.ports.secrets import Keyring
from sterna.ports.volume import Volumes
from sterna.rpc.client import RpcClient
from sterna.saga.runner import no_fault

log = structlog.get_logger(__name__)


def bus_tls(settings: BusTls) -> ssl.SSLContext | None:
    """What TLS to the bus is spoken with; None for plain TCP. Raises BadRequest for files that will not do."""
    if settings.ca_file is None:
        return None
    try:
        tls = ssl.create_default_context(cafile=str(settings.ca_file))
        if settings.cert_file is not None:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl's own errors are OSErrors
        named = ", ".join(
            str(f) for f in (settings.ca_file, settings.cert_file, settings.key_file) if f is not None
        )
        raise BadRequest(
            f"TLS to the bus cannot be had with {named}: {error}", fix="see [bus.tls] in the settings"
        ) from error
    return tls


async def join_bus(settings: BusSettings, name: str) -> NatsBus:
    """The bus these settings name; a bus that is away is waited for in the background. Raises BadRequest."""
    tls = bus_tls(settings.tls)
    password = settings.password.get_secret_value() if settings.password else None
    return await NatsBus.connect(settings.url, name=name, user=settings.user, password=password, tls=tls)


def cloud_of(settings: AgentSettings) -> Cloud | None:
    """The cloud whose providers these settings choose; None where they choose none. Raises BadRequest without the
    extra `openstack`."""
    told = settings.openstack
    if not settings.needs_cloud or told.auth_url is None or told.username is None or told.password is None:
        return None
    return Cloud(
        CloudAccess(
            auth_url=told.auth_url,
            username=told.username,
            password=told.password.get_secret_value(),
            project=told.project,
            user_domain=told.user_domain,
            project_domain=told.project_domain,
            region=told.region,
            interface=told.interface,
            ca_file=str(told.ca_file) if told.ca_file else None,
            timeout_s=told.timeout_s,
        )
    )


def network_of(settings: AgentSettings, cloud: Cloud | None) -> Network:
    """Who knows the VMs' ports."""
    if settings.network.provider == "native" or cloud is None:
        return NativeNetwork()
    return NeutronNetwork(cloud)


def volumes_of(settings: AgentSettings, cloud: Cloud | None, keyring: Keyring) -> tuple[Volumes, ...]:
    """Who knows the VMs' volumes: the first that handles a disk has it."""
    volumes: list[Volumes] = []
    if settings.volumes.provider == "cinder" and cloud is not None:
        name = settings.openstack.host or settings.host
        me = Connector(name, settings.migration.address, settings.volumes.initiator)
        volumes.append(CinderVolumes(cloud, me, keyring=keyring))
    volumes.append(SharedFileVolumes())
    if settings.volumes.initiator:
        volumes.append(
            TgtVolumes(settings.volumes.initiator, tgt_socket=settings.volumes.tgt_socket, keyring=keyring)
        )
    return tuple(volumes)


def host_ports(settings: AgentSettings) -> HostPorts:
    """The real adapters of one compute host. Raises BadRequest where an optional part is missing."""
    cloud = cloud_of(settings)
    about = HostSettings(
        name=settings.host,
        address=settings.migration.address,
        initiator=settings.volumes.initiator,
        instances_dir=str(settings.instances_dir),
        link_bytes_s=settings.migration.link_bytes_s,
        transport=settings.migration.transport,
    )
    hypervisor = LibvirtHypervisor(settings.libvirt_uri, about)
    return HostPorts(
        name=settings.host,
        address=settings.migration.address,
        uri=lambda address: filled(settings.migration.uri_template, address),
        tunnel_uri=lambda address: filled(settings.migration.ssh_uri_template, address),
        hypervisor=hypervisor,
        vif=Plugs(settings.network.ovsdb, settings.network.physical_networks),
        network=network_of(settings, cloud),
        volumes=volumes_of(settings, cloud, hypervisor),
        storage=FileStorage(settings.instances_dir),
        clock=SystemClock(),
        sealing=HpkeSealing(),
        handshake=TlsHandshake(settings.migration.address),
        probe=PlainProbe(settings.migration.address),
        wait_for=settings.network.wait_for,
        vif_plugging_timeout_s=settings.network.vif_plugging_timeout_s,
        vif_plugging_is_fatal=settings.network.vif_plugging_is_fatal,
        network_host=settings.openstack.host or "",
        images=GlanceImages(cloud) if cloud is not None and settings.openstack.images else None,
        traits=settings.traits,
        more_addresses=settings.migration.more_addresses,
    )


async def until_told_to_stop() -> None:
    """Return on SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


_OWN = 0o700
"""Nobody else's: a journal names every VM and volume, and who may write it decides what an agent undoes."""


def _tighten(folder: Path) -> None:
    """Take away what others may do with the folder and its files, and log what was found. Raises OSError."""
    for path in (folder, *sorted(folder.iterdir())):
        found = path.lstat().st_mode
        if not stat.S_ISLNK(found) and (others := stat.S_IMODE(found) & ~_OWN):
            path.chmod(stat.S_IMODE(found) & _OWN)
            was = f"{stat.S_IMODE(found):o}"
            log.warning("state_dir was open to others: closed", path=str(path), mode=was, others=f"{others:o}")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two agents on one journal would be two drivers of the same migrations.

    The folder and what is in it are closed to everybody else. The kernel lets go of the lock when the process dies.

    Raises Conflict if another agent has it, BadRequest if nothing can be kept there.
    """
    try:
        folder.mkdir(mode=_OWN, parents=True, exist_ok=True)
        _tighten(folder)
        lock = os.fdopen(os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "a")
    except OSError as error:
        fix = "name a folder on a local disk that this agent may write to"
        raise BadRequest(f"state_dir {folder} cannot be used: {error.strerror or error}", fix=fix) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "stop it first, or give this one a state_dir of its own"
            raise Conflict(f"another sterna agent already works in {folder}", fix=fix) from None
        yield


STOPPING_S = 10.0
"""How long an agent that is told to stop waits for what is under way to clean up. systemd kills it after 90 s."""


async def _stopped(agent: Agent) -> None:
    """Once it has, or what is under way there does not end: clean-up on a dead file system, perhaps. Then it is
    cancelled once more, and left."""
    stopping = asyncio.create_task(agent.stop(), name="stop")
    await asyncio.wait({stopping}, timeout=STOPPING_S)
    if stopping.done():
        stopping.result()
    else:
        log.warning("what is under way does not end; the next life goes on from the journal")
        stopping.cancel()


def run_agent(config: Path) -> None:
    """`sterna agent`: run until SIGTERM. A copy under way goes on in libvirt and is joined by the next life.

    Raises BadRequest for wrong settings, Permanent for a damaged journal, Conflict where another agent has it, or
    another host's agent has this name.
    """
    log_to_stderr()
    os.umask(0o077)
    settings = load(AgentSettings, config)
    log_to_stderr(settings.log_level, settings.log_format)

    async def run() -> None:
        boot = uuid4().hex
        clock = SystemClock()
        fault_hook = FaultFile(settings.test.fault_file).fault_hook if settings.test.fault_file else no_fault
        journal = SqlJournal.at(settings.state_dir / "journal.db", clock=clock, boot=boot)
        parts = AgentParts(
            host=host_ports(settings),
            journal=journal,
            bus=await join_bus(settings.bus, f"agent {settings.host}"),
            boot=boot,
            fault_hook=fault_hook,
            checks=JournalChecks(StateDir(settings.state_dir).trouble, journal.check_writable),
        )
        client = RpcClient(parts.bus, settings.host, clock)
        await refuse_namesake(client, settings.host, parts.host.hypervisor)
        agent = Agent(parts)
        await agent.start()
        showing = asyncio.create_task(show_state(parts.bus, agent.condition.words), name="systemd")
        await until_told_to_stop()
        showing.cancel()
        log.info("told to stop; running copies go on", host=settings.host)
        await _stopped(agent)
        await parts.bus.close()

    with alone_in(settings.state_dir):
        run_on_loop(run())


CLOSING_S = 3
"""How long answers under way may take when the controller is told to stop."""


async def _stop_when_told(server: Server, controller: Controller) -> None:
    await until_told_to_stop()
    controller.events.close()  # event streams never end by themselves
    server.should_exit = True


def _listening(fd: int | None) -> list[socket.socket] | None:
    try:
        return None if fd is None else [socket.socket(fileno=fd)]
    except OSError as error:
        fix = "open the socket in the process that starts this one, and leave it open (systemd: socket activation)"
        raise BadRequest(f"--fd {fd} is no socket: {error.strerror}", fix=fix) from error


DATABASE_AGAIN_S = 1.0
SLOW_S = 30.0
"""A database that is not open by then is logged: its disk hangs, or the resolver of its name."""
REFUSALS = 2


@contextmanager
def _told_when_slow() -> Iterator[None]:
    """Say after SLOW_S that the database does not answer. Nothing ends that wait but an answer or a signal."""
    fix = "see that it runs, that its disk answers, and that its name is resolved"
    why = f"the database does not answer, it is waited for: nothing within {SLOW_S:g} s"
    timer = threading.Timer(SLOW_S, log.error, (why,), {"fix": fix})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _records(url: str) -> SqlFleet:
    """The controller's records, as soon as the server that keeps them can be reached.

    Raises as `SqlFleet.open` does, Unreachable for a file, or where the server is there and refuses twice: once may
    be before it was there.
    """
    said, refused = "", 0
    while True:
        try:
            with _told_when_slow():
                return SqlFleet.open(url)
        except Unreachable as error:
            with _told_when_slow():
                away = not url.startswith("sqlite") and is_away(url, error)
            refused = 0 if away else refused + 1
            if url.startswith("sqlite") or refused == REFUSALS:
                raise
            if error.message != said:
                said = error.message
                log.error("the database cannot be used yet, it is tried again", why=said, fix=error.fix)
            time.sleep(DATABASE_AGAIN_S)


def _take_all_files() -> None:
    """Each client is an open file, and systemd gives 1,024 unless it is asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_controller(config: Path, fd: int | None = None) -> None:
    """`sterna controller`: serve the REST API until SIGTERM, on `fd` (a listening socket) where one is given.

    Waits for a database server that is away. Raises BadRequest for wrong settings, Permanent or Unreachable for a
    database that cannot be used, Permanent where it cannot listen.
    """
    log_to_stderr()
    os.umask(0o077)  # a database in a file
    settings = load(ControllerSettings, config)
    log_to_stderr(settings.log_level, settings.log_format)
    _take_all_files()
    listening = _listening(fd)
    fleet = _records(settings.database)

    async def run() -> None:
        bus = await join_bus(settings.bus, "controller")
        clock = SystemClock()
        controller = Controller(fleet, RpcClient(bus, "controller", clock), clock)
        host, _, port = settings.listen.rpartition(":")
        app = create_app(controller)
        server = Server(app, host=host.strip("[]"), port=int(port), timeout_graceful_shutdown=CLOSING_S)
        stopping = asyncio.create_task(_stop_when_told(server, controller))
        showing = asyncio.create_task(show_state(bus), name="systemd")
        try:
            await server.serve(sockets=listening)
        except SystemExit as error:  # uvicorn's way to say that it could not start
            if server.lifespan.should_exit:
                raise Permanent("the controller could not start", fix="its log, above, says why") from error
            fix = "its log, above, says why; see `listen` in the settings"
            raise Permanent(f"the controller cannot listen on {settings.listen}", fix=fix) from error
        stopping.cancel()
        showing.cancel()
        await bus.close()
        if not server.started:
            raise Permanent("the controller could not start", fix="its log, above, says why")

    run_on_loop(run())
