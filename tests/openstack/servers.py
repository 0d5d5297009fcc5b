"""Starts the servers in a set of namespaces and waits until they answer. They end with the namespaces.

    with alone(folder) as outer:                  # or a lab: outer = lab.outer
        servers = Servers.up(outer, folder)
        servers.ask(lambda cloud: list(cloud.block_storage.attachments()))

The databases are prepared once, in the cache: making the tables takes a minute, copying them a second.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from openstack.connection import Connection
from openstack.exceptions import SDKException

from sterna.lab import namespaces
from sterna.lab.errors import LabError
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import ISCSI_PORTAL_PORT, LAB_ADDRESS, TGT_SOCKET
from tests.openstack import texts
from tests.openstack.inside import Inside
from tests.openstack.installing import SERVERS, home, install, only_one, program
from tests.openstack.texts import CINDER, DATABASES, ENDPOINTS, KEYSTONE, NEUTRON, PASSWORD, SERVICE_USERS, Places

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
MARIADB_SOCKET = "/run/sterna-mariadb.sock"
START_S = 180.0
"""Two slow cores, three Python servers and Erlang: half a minute where nothing else runs."""


class Servers:
    """Keystone, Neutron and Cinder that run in `outer`."""

    def __init__(self, outer: Namespaces, folder: Path) -> None:
        self.outer = outer
        self.places = Places(folder)
        self._inside = Inside(outer)

    @classmethod
    def up(cls, outer: Namespaces, folder: Path) -> Servers:
        """Install, prepare, start, wait. `folder` is made again. Raises LabError with the log to look into."""
        install()
        prepare()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(home() / "prepared/lib", folder / "lib", symlinks=True)
        servers = cls(outer, folder)
        servers._start_below()
        servers._start_servers()
        servers.eventually(servers._ready, "the servers to be up")
        servers.ask(_make_volume_types)
        return servers

    def ask(self, act: Callable[[Connection], T]) -> T:
        """What the servers answer to the user `sterna`; iterate inside `act`."""
        return self._inside.ask(act)

    def start(self, name: str, argv: Sequence[str], **environment: str) -> None:
        """Start something that ends with the servers, its output in `log/NAME.log`."""
        self.places.log.mkdir(parents=True, exist_ok=True)
        words = [f"{key}={value}" for key, value in environment.items()]
        self.outer.detach(["env", *words, *argv], self.places.log / f"{name}.log")

    def start_fake_agents(self, *hosts: str) -> None:
        """Open vSwitch agents that only say they live, so that ports can be bound to these hosts."""
        script = str(CHECKOUT / "tests/openstack/fake_agents.py")
        self.start("fake-agents", [program("neutron", "python"), script, f"{self.places.etc}/neutron.conf", *hosts])
        self.eventually(lambda: set(hosts) <= self.ask(_live_agents), "the fake agents to be heard")

    def eventually(self, holds: Callable[[], bool], what: str, seconds: float = START_S) -> None:
        """Wait for something that no event tells of. Raises LabError."""
        deadline, seen = time.monotonic() + seconds, "not yet"
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except (SDKException, OSError) as error:
                seen = str(error)
            time.sleep(0.2)
        raise LabError(f"waited {seconds:g} s for {what}: {seen[:500]}; see {self.places.log}")

    def close(self) -> None:
        """End this process's own part; the servers end with their namespaces."""
        self._inside.close()

    # ------------------------------------------------------------ inside

    def _start_below(self) -> None:
        texts.write_all(self.places)
        for name in ("rabbit/mnesia", "rabbit/log", "lock", "volumes", "cinder/conversion", "cinder/coordination"):
            (self.places.lib / name).mkdir(parents=True, exist_ok=True)
        rabbit = texts.rabbit_environment(self.places)
        self.start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], **rabbit)
        self.start_mariadb()
        self.await_port(LAB_ADDRESS, 5672)

    def start_mariadb(self) -> None:
        """The database server; returns when it accepts connections."""
        argv = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={self.places.lib}/mysql"]
        argv += [f"--socket={MARIADB_SOCKET}", "--port=3306", "--bind-address=127.0.0.1", "--max-connections=200"]
        argv += [
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=128M",
            "--innodb-log-file-size=16M",
        ]
        self.start("mariadb", argv)
        self.await_port("127.0.0.1", 3306)

    def start_keystone(self) -> None:
        """Keystone; returns when it listens."""
        uwsgi = [program("keystone", "uwsgi"), "--ini", f"{self.places.etc}/keystone-uwsgi.ini"]
        self.start("keystone", uwsgi, OS_KEYSTONE_CONFIG_FILES=f"{self.places.etc}/keystone.conf")
        self.await_port(LAB_ADDRESS, KEYSTONE)

    def _start_servers(self) -> None:
        etc, files = self.places.etc, texts.neutron_files(self.places)
        ini = [program("neutron", "uwsgi"), "--ini", f"{etc}/neutron-uwsgi.ini"]
        self.start("neutron-api", ini, OS_NEUTRON_CONFIG_FILES=f"{etc}/neutron.conf;{etc}/ml2_conf.ini")
        self.start("neutron-rpc", [program("neutron", "neutron-rpc-server"), *files])
        self.start("cinder-api", [program("cinder", "uwsgi"), "--ini", f"{etc}/cinder-uwsgi.ini"])
        own = ["--config-file", f"{etc}/cinder.conf"]
        path = {"PYTHONPATH": str(CHECKOUT), "TGT_IPC_SOCKET": TGT_SOCKET, "PYTHONDONTWRITEBYTECODE": "1"}
        self.start("cinder-volume", [program("cinder", "cinder-volume"), *own], **path)
        self.start("cinder-scheduler", [program("cinder", "cinder-scheduler"), *own])
        self.start_keystone()
        for port in (NEUTRON, CINDER):
            self.await_port(LAB_ADDRESS, port)

    def await_port(self, address: str, port: int) -> None:
        """Until somebody listens there. Raises LabError."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError), self.outer.open_socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.settimeout(2)
                probe.connect((address, port))
                return
            time.sleep(0.05)
        raise LabError(f"nothing listens on {address}:{port}; see {self.places.log}")

    def _ready(self) -> bool:
        up = self.ask(lambda c: {(s.binary, s.host) for s in c.block_storage.services() if s.state == "up"})
        self.ask(lambda c: list(c.network.networks()))
        storage = {("cinder-volume", "storage@plain"), ("cinder-volume", "storage@chap")}
        return storage <= up and any(binary == "cinder-scheduler" for binary, _ in up)


@contextmanager
def alone(folder: Path) -> Iterator[Namespaces]:
    """Namespaces with the lab's address and a tgt, without a lab; they end with the block, or with this process."""
    folder.mkdir(parents=True, exist_ok=True)
    label = ["openstack", str(folder)]
    for lost in namespaces.find(label):
        namespaces.end(lost)
    (folder / "outer.log").unlink(missing_ok=True)  # what the end of the last ones said is read as a refusal
    outer, process = namespaces.start_outer(label, True, folder / "outer.log")
    try:
        outer.run(["sh", "-ec", _ALONE], extra_environment={"ADDRESS": LAB_ADDRESS, "SOCKET": TGT_SOCKET})
        argv = ["env", f"TGT_IPC_SOCKET={TGT_SOCKET}", "tgtd", "-f", "--iscsi"]
        outer.detach([*argv, f"portal={LAB_ADDRESS}:{ISCSI_PORTAL_PORT}"], folder / "tgtd.log")
        yield outer
    finally:
        namespaces.end(outer.init)
        if process.stdin:
            process.stdin.close()
        process.wait(timeout=20)


_ALONE = """
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /run/lock "$(dirname "$SOCKET")"
ip link set lo up
ip address add "$ADDRESS/24" dev lo
"""


def prepare() -> None:
    """The databases and Keystone's keys in the cache, made where missing or made by other versions."""
    wanted = hashlib.sha256(repr((SERVERS, ENDPOINTS, SERVICE_USERS, 1)).encode()).hexdigest()
    stamp = home() / "prepared/stamp"
    with only_one("prepare"):
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(home() / "prepared", ignore_errors=True)
        with alone(home() / "prepared") as outer:
            servers = Servers(outer, home() / "prepared")
            _prepare(servers)
            servers.close()
        stamp.write_text(wanted)


def _prepare(servers: Servers) -> None:
    places = servers.places
    for folder in (places.lib / "mysql", places.lib / "fernet", places.lib / "credential", places.lib / "neutron"):
        folder.mkdir(parents=True)
    texts.write_all(places)
    data = f"--datadir={places.lib}/mysql"
    normal = "--auth-root-authentication-method=normal"
    servers.outer.run(["mariadb-install-db", "--no-defaults", "--user=root", data, "--skip-test-db", normal])
    servers.start_mariadb()
    user = "openstack@'127.0.0.1'"
    sql = [f"create user {user} identified by '{PASSWORD}'"]
    for name in DATABASES:
        sql += [f"create database {name} character set utf8mb3", f"grant all on {name}.* to {user}"]
    servers.outer.run(["mariadb", "--no-defaults", "-S", MARIADB_SOCKET, "-e", ";".join(sql)])
    for argv in texts.manage(places):
        servers.outer.run(argv, timeout=300)
    servers.start_keystone()
    admin = Inside(servers.outer, user="admin", project="admin")
    servers.eventually(lambda: bool(admin.ask(lambda c: list(c.identity.roles()))), "Keystone")
    admin.ask(_make_users)
    admin.close()
    servers.outer.run(["mariadb-admin", "--no-defaults", "-S", MARIADB_SOCKET, "shutdown"])


def _make_users(cloud: Connection) -> None:
    """The services' users with the roles admin and service, and the catalog."""
    identity: Any = cloud.identity  # of version 2 or 3, as the SDK types it
    roles = {role.name: role for role in identity.roles()}
    service = identity.create_project(name="service", domain_id="default")
    for name in SERVICE_USERS:
        user = identity.create_user(
            name=name, password=PASSWORD, domain_id="default", default_project_id=service.id
        )
        for role in ("admin", "service"):
            identity.assign_project_role_to_user(service, user, roles[role])
    for name, (kind, url) in ENDPOINTS.items():
        made = identity.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            identity.create_endpoint(service_id=made.id, interface=interface, url=url, region_id=texts.REGION)


def _make_volume_types(cloud: Connection) -> None:
    shared = {"plain": {}, "chap": {}, "multi": {"multiattach": "<is> True"}}
    for name, more in shared.items():
        backend = "chap" if name == "chap" else "plain"
        cloud.block_storage.create_type(name=name, extra_specs={"volume_backend_name": backend, **more})


def _live_agents(cloud: Connection) -> set[str]:
    return {agent.host for agent in cloud.network.agents() if agent.is_alive}
