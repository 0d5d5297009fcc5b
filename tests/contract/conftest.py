"""Fixtures of the contract tests: buses (a nats-server, a broker in memory), and two hosts, simulated or real."""

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.nats.bus import NatsBus
from sterna.kit.clock import SystemClock
from sterna.lab import Lab
from sterna.lab.credentials import SSH
from sterna.rpc.subjects import token
from sterna.sim.ports.bus import MemoryBroker, MemoryBus
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import Pace
from tests.contract.lab_hosts import LabHosts
from tests.contract.remote import adapters_on
from tests.contract.simulated_hosts import SimulatedHosts
from tests.contract.two_hosts import Side, TwoHosts
from tests.lab_state import state
from tests.postgres import Postgres

NATS_SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")


class NatsWorld:
    """Starts, kills and restarts one nats-server; hands out buses connected to it."""

    max_payload = 1024 * 1024

    def __init__(self, *options: str) -> None:
        self.options = options
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.buses: list[NatsBus] = []
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    tls: ssl.SSLContext | None = None
    """What its clients speak TLS with."""

    async def bus(self, name: str, **options: Any) -> NatsBus:
        bus = await NatsBus.connect(self.url, name=name, who=token(name), tls=self.tls, **options)
        self.buses.append(bus)
        return bus

    async def start(self) -> None:
        # pdeathsig: a test run that is killed takes its server along
        args = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            NATS_SERVER or "nats-server",
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            *self.options,
        ]
        self.process = await asyncio.create_subprocess_exec(
            *args, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(20):
            while not await _listens(self.port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
            for bus in self.buses:
                await bus.wait_connected()

    def signal(self, number: signal.Signals) -> None:
        """To the server."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await self.process.wait()
        async with asyncio.timeout(20):
            while any(b.connected for b in self.buses):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        for bus in self.buses:
            await bus.close()
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class MemoryWorld:
    """The same for the in-memory broker."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.max_payload = self.broker.max_payload
        self.broker.stop()

    async def bus(self, name: str) -> MemoryBus:
        return self.broker.bus(name)

    async def start(self) -> None:
        self.broker.start()

    async def kill(self) -> None:
        self.broker.stop()

    async def end(self) -> None:
        pass


World = NatsWorld | MemoryWorld


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
async def guarded_nats() -> AsyncIterator[NatsWorld]:
    """A nats-server that wants a password."""
    if NATS_SERVER is None:
        pytest.fail("nats-server is not installed (Debian: apt-get install nats-server)")
    world = NatsWorld("--user", "agent", "--pass", "right")
    await world.start()
    yield world
    await world.end()


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A CA, and a key and certificate of a server at 127.0.0.1."""
    run = partial(subprocess.run, cwd=folder, check=True, capture_output=True)
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    run([*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"])
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    run([*new, *signed, "-subj", "/CN=nats", "-keyout", "server.key", "-out", "server.pem"])
    return folder / "ca.pem", folder / "server.pem", folder / "server.key"


@pytest.fixture(params=["plain", "tls"])
async def nats(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NatsWorld]:
    """A nats-server, once as it is and once with TLS, which every client of `nats.bus` speaks."""
    if NATS_SERVER is None:
        pytest.fail("nats-server is not installed (Debian: apt-get install nats-server)")
    # Less than the defaults of 64 MB and 10 s: a client that does not read is closed soon.
    settings = tmp_path / "nats.conf"
    settings.write_text('max_pending: 4194304\nwrite_deadline: "500ms"\n')
    if request.param == "plain":
        world = NatsWorld("-c", str(settings))
    else:
        ca, cert, key = certificates(tmp_path)
        world = NatsWorld("-c", str(settings), "--tls", "--tlscert", str(cert), "--tlskey", str(key))
        world.tls = ssl.create_default_context(cafile=ca)
    await world.start()
    yield world
    await world.end()


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "nats" and NATS_SERVER is None:
        pytest.fail("nats-server is not installed (Debian: apt-get install nats-server)")
    world: World = MemoryWorld() if request.param == "memory" else NatsWorld()
    await world.start()
    yield world
    await world.end()


@pytest.fixture(scope="module")
def contract_lab() -> Iterator[Lab]:
    """Two hosts without agents; they die with the test run."""
    lab = Lab.up(state("contract"), agents=False, owner=True)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture(params=["sim", pytest.param("lab", marks=pytest.mark.lab)])
async def hosts(request: pytest.FixtureRequest) -> AsyncIterator[TwoHosts]:
    """Each contract test runs against both."""
    if request.param == "sim":
        world = SimWorld(SystemClock(), pace=Pace(prepare_ms=30, confirm_ms=50))
        yield SimulatedHosts(world)
        await world.close()
        return
    lab: Lab = request.getfixturevalue("contract_lab")
    async with AsyncExitStack() as stack:
        sides = []
        for name in ("host1", "host2"):
            there = await stack.enter_async_context(adapters_on(lab, name))
            host = lab.host(name)
            ports = {"hypervisor": there.hypervisor, "vif": there.vif, "iscsi": there.tgt}
            ports |= {"files": there.files, "storage": there.storage}
            side = Side(name, host.peer_uri, f"tcp://{host.address}", there.instances, **ports)
            side.tunnel_uri = f"qemu+ssh://root@{host.address}/system?command={SSH}/ssh"
            sides.append(side)
        both = LabHosts(lab, *sides)
        try:
            yield both
        finally:
            both.remove_guests()


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """The server, for tests that stop it."""
    yield postgres
    postgres.stop()
    postgres.start()
