"""A lab: hosts made of namespaces on this machine, with a network, a bus and an iSCSI target between them.

`Lab.up` makes one, `Lab.attach` finds one, `Lab.down` takes it down. Everything is in the state folder and in the
lab's own namespaces; the machine's network, mounts, libvirt and Open vSwitch are not touched.
"""

import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sterna.lab import controllers, secrets
from sterna.lab import database as databases
from sterna.lab.building import build_lab, check_machine
from sterna.lab.database import LabDatabase
from sterna.lab.ending import clear_state, end_lab, locked, take_down
from sterna.lab.enrolment import CONTROLLERS
from sterna.lab.errors import LabError
from sterna.lab.guest_maker import make_guest, unplug_hybrid
from sterna.lab.guest_view import Guest, Ping
from sterna.lab.host import LabHost, part_indexes
from sterna.lab.iscsi import IscsiTarget
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import STATE, target_name
from sterna.lab.record import GuestRecord, LabRecord, Pace, load_record
from sterna.lab.snapshot import allocated_bytes, epochs, host_snapshot

READY_SECONDS = 60.0
"""From their start to the controller having heard every agent; it takes 2 s on an idle machine."""
FORKED_SECONDS = 2.0
"""How long a child may take from fork to exec; it takes milliseconds."""

BOOT_SECONDS = 180.0
"""For a guest to boot, in seconds: an emulated one of a dozen that boot at once on two processors needs more than a
minute."""


class Lab:
    """A lab that is up."""

    def __init__(self, state_dir: Path, record: LabRecord) -> None:
        self.state_dir = state_dir
        self._record = record
        self.outer = Namespaces(record.outer.identity)
        self.iscsi = IscsiTarget(self.outer, state_dir / "iscsi")
        self.database = LabDatabase(self.outer, state_dir / "logs/postgresql.log")
        self.hosts: dict[str, LabHost] = {
            host.name: LabHost(
                host.name,
                host.index,
                host.address,
                state_dir / "hosts" / host.name,
                Namespaces(host.init.identity),
                insecure=record.insecure,
            )
            for host in record.hosts.values()
        }

    @classmethod
    def up(
        cls,
        state_dir: Path | str = ".lab",
        hosts: int = 2,
        agents: bool = True,
        owner: bool = False,
        *,
        database: Literal["sqlite", "postgresql"] = "sqlite",
        controllers: int = 1,
        insecure: bool = False,
    ) -> "Lab":
        """Makes a lab, or returns the one that is up in `state_dir` (a dead or half-made one is cleared first).

        With `owner` it dies with this process, however that ends. `database`: the controllers keep their records
        in a file, or in a PostgreSQL of the lab's own, which several of them can share. `insecure`: libvirt's calls
        and what is migrated are not encrypted. Raises LabError when the machine cannot have one.
        """
        state = Path(state_dir).absolute()
        check_machine(state, hosts)
        if controllers > CONTROLLERS:
            raise LabError(f"a lab has at most {CONTROLLERS} controllers, not {controllers}")
        if controllers > 1 and database == "sqlite":
            raise LabError("several controllers need a database that they can share: postgresql")
        state.mkdir(parents=True, exist_ok=True)
        with locked(state):
            if (live := _live(state)) is not None:
                return live
            clear_state(state)
            try:
                lab = cls(state, build_lab(state, hosts, owner, insecure=insecure))
                lab._record.database = database
                if database == "postgresql":
                    lab.database.create()
                if agents:
                    for number in range(1, controllers + 1):
                        lab.start_controller(number)
                    for name in lab.hosts:
                        lab.start_agent(name)
                    lab.wait_ready()
                lab._record.complete = True
                lab._record.save(state)
            except BaseException:
                with suppress(LabError):
                    end_lab(state)
                raise
            return lab

    @classmethod
    def attach(cls, state_dir: Path | str = ".lab") -> "Lab":
        """The lab that is up in `state_dir`; raises LabError when there is none."""
        state = Path(state_dir).absolute()
        live = _live(state)
        if live is None:
            raise LabError(f"no lab is up in {state}: `sterna lab up` makes one")
        return live

    def down(self) -> None:
        """Kills everything in the lab, waits until it is gone, and deletes its disks. Logs stay."""
        take_down(self.state_dir)

    @property
    def accelerator(self) -> str:
        """What guests run under: kvm or tcg."""
        return self._record.accelerator

    @property
    def has_postgresql(self) -> bool:
        """Whether `database` is there."""
        return self._record.database == "postgresql"

    @property
    def controller_urls(self) -> dict[int, str]:
        """The address of each controller that was started, by its number from 1."""
        return self._record.controller_urls

    @property
    def controller_url(self) -> str | None:
        """The controller's address on this machine, once one was started."""
        return self._record.controller_url

    @property
    def controller_token(self) -> str:
        """What every controller of this lab knows an administrator by, once one was started; '' before."""
        return self._record.controller_token or ""

    @property
    def controller_ca(self) -> str:
        """The file of the CA that knows the controllers; '' where the API has no TLS."""
        return self._record.controller_ca or ""

    @property
    def api_access(self) -> dict[str, Any]:
        """`headers` and `verify` of an HTTP client that speaks to the controllers."""
        return {"headers": {"Authorization": f"Bearer {self.controller_token}"}, "verify": self._api_tls}

    @cached_property
    def _api_tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.controller_ca or None)

    def host(self, name: str) -> LabHost:
        """A host by name; raises LabError naming those there are."""
        if name not in self.hosts:
            raise LabError(f"no host {name!r} in the lab; there are {', '.join(self.hosts)}")
        return self.hosts[name]

    def run(
        self, argv: Sequence[str], check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the lab's outer namespaces, on neither host."""
        return self.outer.run(argv, check=check, timeout=timeout)

    # Guests

    def create_vm(  # noqa: PLR0913 - every keyword is one fact about the guest
        self,
        name: str,
        host: str,
        memory_mib: int = 256,
        dirty_mib_s: int = 20,
        disks: Sequence[str] = ("shared",),
        *,
        autostart: bool = False,
        nics: Sequence[str] = (),
        port_id: str | None = None,
        pace: Pace = "usual",
    ) -> Guest:
        """Defines and starts a guest on `host` and returns when it answers. Disks, in order: shared, local, iscsi,
        overlay, luks (shared), chap (iscsi); `volume:ID` is an iSCSI volume that somebody else made in its tgt.
        `nics`: kinds of `places.FURTHER_NICS`, besides the first on Open vSwitch.
        `port_id`: its NIC is this port of a network service, whose agent wires it. `pace`: how often it checks
        its disks and its clock; a calm one costs an emulating machine a third of a busy one.

        Raises LabError when the name is taken, a disk kind unknown, or the guest not up within `BOOT_SECONDS`.
        """
        with locked(self.state_dir, "guests.lock"):
            self._record = load_record(self.state_dir) or self._record
            if any(kind.startswith("macvtap") for kind in nics) and not self._record.indexes_apart:
                for each in self.hosts.values():
                    part_indexes(each)
                self._record.indexes_apart = True
            record = make_guest(
                self.host(host),
                self._record,
                self.iscsi,
                name=name,
                memory_mib=memory_mib,
                dirty_mib_s=dirty_mib_s,
                disks=disks,
                nics=nics,
                port_id=port_id,
                pace=pace,
            )
            self._record.guests[name] = record
            self._record.save(self.state_dir)
        if autostart:
            self.host(host).virsh("autostart", name)
        guest = Guest(record, self.outer)
        guest.status(timeout=BOOT_SECONDS)
        return guest

    def guest(self, name: str) -> Guest:
        """A guest by name; raises LabError naming those there are."""
        guests = self.guest_records()
        if name not in guests:
            raise LabError(f"no guest {name!r} in the lab; there are: {', '.join(guests) or 'none'}")
        return Guest(guests[name], self.outer)

    def guest_records(self) -> dict[str, GuestRecord]:
        """Every guest made in this lab, by name."""
        return (load_record(self.state_dir) or self._record).guests

    def hosts_running(self, guest: str) -> list[str]:
        """The hosts whose libvirt says that the guest runs there. More than one is what must never happen."""
        return [
            name
            for name, host in self.hosts.items()
            if guest in host.virsh("list", "--name", "--state-running").split()
        ]

    def remove_vm(self, name: str) -> None:
        """Destroys and undefines a guest wherever it is, and removes its disks.

        Raises LabError, its disks still there, where a libvirt does not release it.
        """
        record = self.guest_records().get(name)
        if record is None:
            raise LabError(f"no guest {name!r} in the lab")
        for host in self.hosts.values():
            host.virsh("destroy", name, check=False)
            host.virsh("undefine", name, check=False)
            if name in host.virsh("list", "--all", "--name").split():
                raise LabError(f"libvirt on {host.name} does not let go of {name}: restarting its libvirtd helps")
            shutil.rmtree(host.root / "instances" / record.uuid, ignore_errors=True)
            for nic in record.nics:
                if nic.kind == "ovs-hybrid":
                    unplug_hybrid(host, nic)
        for disk in record.disks:
            for form in ("qcow2", "luks"):
                (self.state_dir / "shared" / f"{disk.id}.{form}").unlink(missing_ok=True)
            if disk.kind in ("iscsi", "chap"):
                self.iscsi.remove(disk.id)
            for host in self.hosts.values() if disk.kind in ("luks", "chap") else ():
                secrets.undefine(host, disk.id)
        with locked(self.state_dir, "guests.lock"):
            self._record = load_record(self.state_dir) or self._record
            self._record.guests.pop(name, None)
            self._record.save(self.state_dir)

    @contextmanager
    def ping(self, guest: Guest, interval_ms: float = 5.0, address: str = "") -> Iterator[Ping]:
        """Pings `guest` (at the address of its first NIC, or another) for as long as the block lasts; the numbers
        are there when it is over."""
        with Ping(guest, self.outer, interval_ms, address) as ping:
            yield ping

    def snapshot(self, host: str) -> dict[str, object]:
        """What is really in the world on a host, comparable before and after; see `host_snapshot`."""
        return host_snapshot(self.host(host), self.iscsi)

    def epochs(self, host: str) -> dict[str, list[int | None]]:
        """Sterna's epoch in the definitions of each domain on a host; see `snapshot.epochs`."""
        return epochs(self.host(host))

    def shared_files(self) -> list[str]:
        """What lies in the folder all hosts share: disks, and any token left beside them."""
        return sorted(path.name for path in (self.state_dir / "shared").iterdir())

    def allocated_bytes(self, host: str) -> dict[str, int]:
        """Bytes on disk of each file in the host's instance folder (its path in it -> bytes)."""
        return allocated_bytes(self.host(host))

    # iSCSI

    def create_iscsi_volume(self, name: str, size_mib: int) -> str:
        """A sparse volume that admits nobody yet. Returns the target's name; the LUN is 1."""
        return self.iscsi.create(name, size_mib)

    def tgt_admitted(self, name: str) -> list[str]:
        """The initiator names admitted to a volume."""
        return self.iscsi.admitted(target_name(name))

    def tgt_sessions(self, name: str) -> list[str]:
        """The initiator names connected to a volume, once per session."""
        return self.iscsi.sessions(target_name(name))

    # Sterna's own processes

    def start_agent(self, host: str) -> None:
        """Starts the Sterna agent on a host, log in its state folder. Raises LabError if one runs already.

        What a killed agent had just forked looks like an agent until it executes its program: that is waited for.
        """
        chosen, deadline = self.host(host), time.monotonic() + FORKED_SECONDS
        while chosen.agent_pid() is not None:
            if time.monotonic() > deadline:
                raise LabError(f"an agent runs on {host} already")
            time.sleep(0.01)
        argv = [sys.executable, "-m", "sterna", "agent", "--config", f"{STATE}/agent.toml"]
        chosen.inside.detach(argv, chosen.root / "state/agent.log")

    def agent_pid(self, host: str) -> int | None:
        """The machine's PID of a host's agent; None when there is none."""
        return self.host(host).agent_pid()

    def kill_agent(self, host: str, signal: int) -> None:
        """Sends a signal to a host's agent and waits until it has ended. Raises LabError when there is none, or
        when it has not ended within 10 s."""
        pid = self.agent_pid(host)
        if pid is None:
            raise LabError(f"no agent runs on {host}")
        watched = os.pidfd_open(pid)  # readable once the process is gone, and never another process's
        try:
            os.kill(pid, signal)
            if not select.select([watched], [], [], 10)[0]:
                raise LabError(f"the agent on {host} goes on after signal {signal}")
        finally:
            os.close(watched)

    def start_controller(self, number: int = 1, port: int = 0) -> str:
        """Starts a controller inside the lab, listening on this machine's 127.0.0.1, on `port` or on one that is
        free; its URL."""
        database = databases.URL if self.has_postgresql else f"sqlite:///{self.state_dir}/controller.db"
        config, scheme = controllers.write_settings(self.state_dir, number, database, self._record)
        with socket.create_server(("127.0.0.1", port)) as listening:
            url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
            argv = [sys.executable, "-m", "sterna", "controller", "--config", str(config)]
            argv += ["--fd", str(listening.fileno())]
            self.outer.detach(argv, self.state_dir / "logs" / f"{config.stem}.log", pass_fds=[listening.fileno()])
        self._record.controller_urls[number] = url
        self._record.controller_url = self._record.controller_urls.get(1)
        self._record.save(self.state_dir)
        return url

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Until every controller has heard every host's agent. Raises LabError after `timeout` seconds."""
        for url in self.controller_urls.values():
            try:
                controllers.await_hosts(url, self.hosts, self.api_access, timeout)
            except LabError as late:
                raise LabError(f"{late}; see the logs in {self.state_dir}") from None

    def controller_pid(self, number: int = 1) -> int | None:
        """The machine's PID of a controller; None when there is none."""
        for pid, argv in self.outer.processes():
            if self.is_controller(argv, number):
                return pid
        return None

    def is_controller(self, argv: Sequence[str], number: int | None = None) -> bool:
        """Is this the command line of the controller of that number (None: of any)?"""
        if list(argv[1:4]) != ["-m", "sterna", "controller"]:
            return False
        return number is None or str(controllers.settings_file(self.state_dir, number)) in argv


def _live(state: Path) -> Lab | None:
    """The complete lab in `state` whose every PID 1 is alive; else None."""
    try:
        record = load_record(state)
    except LabError:
        return None
    if record is None or not record.complete:
        return None
    well = all(process.identity.well for process in record.processes())
    return Lab(state, record) if well else None
