"""`sterna controller`: the process that serves the REST API."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog

from sterna.adapters.hooks.own import OwnHooks
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.enrolled import EnrolledHosts
from sterna.adapters.identity.permits import OwnPermits
from sterna.adapters.metrics.exposition import Exposition
from sterna.adapters.nats.bus import NatsBus
from sterna.adapters.nats.doctor import PLACES, look_at_bus_rights
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.servers.reads import CinderReads, NeutronReads, OtherNova
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import is_away
from sterna.adapters.stderr import log_to_stderr
from sterna.adapters.traces import OtlpReceiver
from sterna.adapters.users.keystone import KeystoneUsers
from sterna.api.app import create_app
from sterna.api.compute.call import Setup
from sterna.api.listeners import OwnTls, access_rules_of, listening, own_tls, tls_of
from sterna.api.server import Server
from sterna.bootstrap.bus_server import keep_configured
from sterna.bootstrap.ca_desk import authority_of
from sterna.bootstrap.identity import check_own
from sterna.bootstrap.metrics import MetricsServer
from sterna.bootstrap.notify import check_ca_files, notify_from
from sterna.bootstrap.process import (
    DISK_FIX,
    bus_tls,
    join_bus,
    wait_for_stop_signal,
    warn_when_slow,
)
from sterna.bootstrap.renewal import watch_of, watching
from sterna.config import ControllerSettings, KeepSettings, load
from sterna.config.access import KeystoneSettings
from sterna.config.compute import ComputeSettings, NovaSettings
from sterna.config.fleet import FleetSettings
from sterna.config.traces import TracesSettings
from sterna.controller.controller import Controller
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.metrics import ControllerMetrics
from sterna.controller.operations.observing import Capacity
from sterna.controller.records.members import Members
from sterna.controller.records.pruning import Pruning, Retention
from sterna.controller.records.servers import Servers
from sterna.controller.records.traces import TraceExport
from sterna.domain.errors import Permanent, Unreachable
from sterna.domain.objective import Asked
from sterna.domain.policies import May
from sterna.domain.trust.identities import CONTROLLER_TOKEN, Kind
from sterna.joining import Watch
from sterna.kit.clock import SystemClock
from sterna.kit.loop import run as run_on_loop
from sterna.kit.threads import in_thread
from sterna.kit.version import installed
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.metrics import Scraped
from sterna.rpc.client import RpcClient

log = structlog.get_logger(__name__)

FILES_S = 10.0
CLOSING_S = 3
"""How long answers in progress may take when the controller stops."""


async def _stop_on_signal(server: Server, controller: Controller) -> None:
    await wait_for_stop_signal()
    controller.prepare_to_stop()
    server.should_exit = True


DATABASE_AGAIN_S = 1.0
_DATABASE_FIX = "check that it runs, that its disk answers, and that its name is resolved"
REFUSALS = 2


def _records(url: str) -> SqlFleet:
    """The controller's records, as soon as their server can be reached. Raises as `SqlFleet.open` does, Unreachable
    for a file, or where the server refuses twice: the first refusal may come while it starts.
    """
    last_error, refused = "", 0
    while True:
        try:
            with warn_when_slow("the database", _DATABASE_FIX):
                return SqlFleet.open(url)
        except Unreachable as error:
            with warn_when_slow("the database", _DATABASE_FIX):
                away = not url.startswith("sqlite") and is_away(url, error)
            refused = 0 if away else refused + 1
            if url.startswith("sqlite") or refused == REFUSALS:
                raise
            if error.message != last_error:
                last_error = error.message
                log.error("the database cannot be used yet; retrying", why=last_error, fix=error.fix)
            time.sleep(DATABASE_AGAIN_S)


def _take_all_files() -> None:
    """Each client is an open file, and systemd gives 1,024 unless it is asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cloud_of(settings: KeystoneSettings, compute: ComputeSettings) -> Cloud | None:
    """The cloud that these settings name; None where they name none. Raises BadRequest without the extra
    `openstack`."""
    if settings.auth_url is None or settings.username is None or settings.password is None:
        return None
    return Cloud(
        CloudAccess(
            auth_url=settings.auth_url,
            username=settings.username,
            password=settings.password.get_secret_value(),
            project=settings.project,
            user_domain=settings.user_domain,
            project_domain=settings.project_domain,
            region=compute.region,
            interface=compute.interface,
            ca_file=str(settings.ca_file) if settings.ca_file else None,
            timeout_s=settings.timeout_s,
        )
    )


def external_users_of(settings: KeystoneSettings, cloud: Cloud | None) -> ExternalUsers | None:
    """Its users; None without a cloud."""
    if cloud is None or settings.auth_url is None:
        return None
    users = KeystoneUsers(cloud, settings.auth_url)
    return ExternalUsers(users, SystemClock(), f"{settings.project}@{settings.project_domain}", settings.roles)


def nova_of(settings: NovaSettings, cloud: Cloud | None) -> OtherNova | None:
    """The Nova whose VMs are left alone; None where there is none."""
    if cloud is None or settings.region is None:
        return None
    return OtherNova(cloud, settings.region, settings.interface)


def compute_of(
    settings: ControllerSettings, cloud: Cloud | None, external_users: ExternalUsers | None, fleet: Fleet
) -> Setup | None:
    """What the Compute API is served with; None where it is not."""
    compute = settings.compute
    if not compute.enabled or cloud is None or external_users is None:
        return None
    volumes = CinderReads(cloud) if compute.cinder else None
    ports = NeutronReads(cloud) if compute.neutron else None
    return Setup(
        external_users=external_users,
        servers=Servers(fleet, SystemClock(), ports, volumes, compute.project),
        keystone=settings.access.keystone.auth_url or "",
        volumes=volumes,
        url=compute.url,
        zone=compute.zone,
        asked=Asked(policy=compute.policy, may=None if compute.may is None else frozenset(map(May, compute.may))),
    )


def retention_of(settings: KeepSettings) -> Retention:
    """How long records are kept."""
    return Retention(
        migrations=settings.migrations_days, operations=settings.operations_days, log=settings.log_days
    )


@contextmanager
def sockets_of(settings: ControllerSettings, fd: int | None) -> Iterator[list[socket.socket]]:
    """As `listening`; a resolver that does not answer about `listen` is logged."""
    with ExitStack() as stack:
        with warn_when_slow("the resolver, for `listen`,", "set `listen` to an address, or check that DNS answers"):
            sockets = stack.enter_context(listening(settings, fd))
        yield sockets


def show_again(
    bus: NatsBus, own: OwnTls | None, settings: ControllerSettings, metrics: MetricsServer
) -> Callable[[], None]:
    """What shows a new certificate to the bus, and to those who connect to the API or read metrics."""

    def show() -> None:
        bus.use_tls(bus_tls(settings.identity.bus_tls(settings.bus.tls), settings.bus.url))
        metrics.read_again()
        if own is not None:
            own.read_again()

    return show


def served_with(settings: ControllerSettings) -> tuple[OwnTls | None, ssl.SSLContext | None]:
    """This controller's own certificate, and what TLS the API is served with. Raises BadRequest."""
    with warn_when_slow("the disk of the certificates in [identity] and [access]", DISK_FIX):
        own = own_tls(settings.identity)
        return own, tls_of(settings.access, own)


def capacity_of(fleet: FleetSettings) -> Capacity:
    """What operations fill hosts with."""
    return Capacity(
        vcpus_per_cpu=fleet.vcpus_per_cpu,
        kept_memory_bytes=fleet.kept_memory_mib * 2**20,
        spare_hosts=fleet.spare_hosts,
        preparing=fleet.preparing,
    )


def hooks_of(fleet: FleetSettings) -> OwnHooks:
    """What rolling operations may ask for."""
    token = fleet.webhook_token.get_secret_value() if fleet.webhook_token is not None else None
    return OwnHooks(fleet.between, fleet.webhooks, token, str(fleet.webhook_ca_file or "") or None)


def traces_of(settings: TracesSettings, fleet: Fleet) -> TraceExport | None:
    """What sends traces; None where the settings name no receiver."""
    if not settings.endpoint:
        return None
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    receiver = OtlpReceiver(settings.address, headers, str(settings.ca_file or "") or None)
    return TraceExport(fleet, receiver, SystemClock(), installed())


def controller_of(
    settings: ControllerSettings, fleet: Fleet, client: RpcClient, cloud: Cloud | None, members: Members
) -> Controller:
    """One that is not started yet."""
    clock = SystemClock()
    permits = OwnPermits(settings.identity.folder, clock) if settings.identity.enrol == "sterna" else None
    nova = nova_of(settings.nova, cloud)
    controller = Controller(fleet, client, clock, client.dead_letters, nova, members, permits)
    controller.fill_hosts(capacity_of(settings.fleet))
    controller.use_hooks(hooks_of(settings.fleet))
    controller.operate.may_rebalance = settings.fleet.rebalance
    controller.traces = traces_of(settings.traces, fleet)
    notify_from(settings, controller.notifications, clock)
    controller.doctor.bus_rights = partial(_bus_rights, settings.bus_server.config_file)
    return controller


async def _bus_rights(config_file: Path | None) -> str:
    """See Examine.bus_rights."""
    files = [*PLACES, *([config_file] if config_file is not None else [])]
    look = partial(look_at_bus_rights, files)
    return str((await in_thread(look, name="sterna-doctor", limit_s=FILES_S)).get("allow_responses", ""))


def scraped_of(controller: Controller, clock: Clock, watch: Watch | None) -> Scraped:
    """What Prometheus reads of this controller."""
    metrics = ControllerMetrics(controller, installed())
    if watch is not None:
        metrics = ControllerMetrics(controller, installed(), lambda: watch.valid_until, watch.warning)
    return Exposition(metrics.families, clock)


def _check_notify(settings: ControllerSettings) -> None:
    with warn_when_slow("the disk of the certificates in [[notify]]", DISK_FIX):
        check_ca_files(settings)


def run_controller(config: Path, fd: int | None = None) -> None:
    """`sterna controller`: serve the REST API until SIGTERM, only on `fd` (a listening socket) where one is given.

    Waits for a database server that is away. Raises BadRequest for wrong settings, Permanent or Unreachable for a
    database that cannot be used, Permanent or Conflict where it cannot listen.
    """
    log_to_stderr()
    os.umask(0o077)  # a database in a file
    settings = load(ControllerSettings, config)
    log_to_stderr(settings.log_level, settings.log_format)
    _take_all_files()
    check_own(settings.identity, Kind.CONTROLLER)
    authority = authority_of(settings)
    cloud = cloud_of(settings.access.keystone, settings.compute)
    external_users = external_users_of(settings.access.keystone, cloud)
    rules = access_rules_of(settings.access, external_users)
    own, tls = served_with(settings)
    metrics = MetricsServer(settings.metrics, settings.identity)
    _check_notify(settings)
    members = Members(EnrolledHosts(authority) if authority else None, insecure=not settings.identity.enrol)

    async def run(sockets: list[socket.socket]) -> None:
        bus = await join_bus(settings.bus, "controller", CONTROLLER_TOKEN, settings.identity)
        clock = SystemClock()
        client = RpcClient(bus, CONTROLLER_TOKEN, clock)
        controller = controller_of(settings, fleet, client, cloud, members)
        desk = LocalDesk(authority) if authority is not None else None
        show = show_again(bus, own, settings, metrics)
        watch = watch_of(settings.identity, settings.bus.tls, clock, show, Kind.CONTROLLER, desk)
        scraped = scraped_of(controller, clock, watch)
        app = create_app(controller, rules, desk, compute_of(settings, cloud, external_users, fleet), scraped)
        server = Server(app, tls=tls, timeout_graceful_shutdown=CLOSING_S)
        kept = keep_configured(settings.bus_server, authority)
        pruning = Pruning(fleet, clock, retention_of(settings.keep)).run()
        work = [_stop_on_signal(server, controller), kept, pruning, metrics.run(scraped), *watching(bus, watch)]
        work += [controller.traces.run()] if controller.traces is not None else []
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await server.serve(sockets=sockets)
        except SystemExit as error:  # uvicorn's way to say that it could not start
            raise Permanent("the controller could not start", fix="its log, above, says why") from error
        for task in tasks:
            task.cancel()
        await bus.close()
        if not server.started:
            raise Permanent("the controller could not start", fix="its log, above, says why")

    fleet = _records(settings.database)
    with sockets_of(settings, fd) as sockets:
        run_on_loop(run(sockets))
