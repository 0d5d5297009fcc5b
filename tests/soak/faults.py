"""Strikes the faults of a plan on a lab, each in a thread of its own, and heals them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sterna.lab import links, sabotage
from sterna.lab.errors import LabError
from sterna.lab.lab import Lab
from sterna.lab.places import LAB_ADDRESS
from sterna.lab.sabotage import Victim
from tests.soak.plan import FaultHook
from tests.soak.timeline import Timeline

BUS_PORT = 4222
FLOOD_BYTES = 64 << 20
"""More than the sockets between the bus and a client hold."""
FLOOD_MESSAGE = 256 << 10
STRICT = 'write_deadline: "500ms"\n'
"""Settings of a bus that closes a client which does not read for half a second."""
ON_ITS_WAY_S = 10.0
"""How long a strike on an incoming QEMU waits for one."""
HOST_DAEMONS = ("ovsdb-server", "ovs-vswitchd", "libvirtd", "agent")


class Saboteur:
    """Everything that breaks in a run, breaks here."""

    def __init__(self, lab: Lab, timeline: Timeline) -> None:
        self._lab, self._timeline = lab, timeline
        self._links: list[tuple[str, links.Link]] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def play(self, strikes: Sequence[FaultHook], stop: threading.Event) -> None:
        """Strike all of them at their times after now. Returns when the last has been healed."""
        began = time.monotonic()
        for strike in strikes:
            if stop.wait(max(0.0, began + strike.at_s - time.monotonic())):
                break
            thread = threading.Thread(target=self._one, args=(strike,), name=f"{strike.fault} {strike.part}")
            thread.start()
            self._threads.append(thread)
        if stop.is_set():
            self._over.set()
        for thread in self._threads:
            thread.join()

    def _one(self, strike: FaultHook) -> None:
        facts = {"fault": strike.fault, "part": strike.part}
        try:
            heal = self._strike(strike)
        except LabError as error:  # the guest has no QEMU there now, ...
            self._timeline.note("fault missed", **facts, error=str(error))
            return
        self._timeline.note("fault", **facts, for_s=strike.for_s)
        self._over.wait(strike.for_s)
        try:
            heal()
        except LabError as error:
            self._timeline.note("healing failed", **facts, error=str(error))
            return
        self._timeline.note("healed", **facts)

    def _strike(self, strike: FaultHook) -> Callable[[], object]:
        """Make it happen; what heals it."""
        kind, *where = strike.part.split(" ")
        if kind == "link":
            return self._break_link(strike.fault, *where)
        if kind == "slow-client":
            return self._flood(*where)
        victim, start = self._victim(kind, where)
        if strike.fault == "hang":
            return self._hang(victim)
        sabotage.kill(victim)
        return start

    def _victim(self, kind: str, where: list[str]) -> tuple[Victim, Callable[[], object]]:
        lab, host = self._lab, where[0] if where else ""
        if kind == "controller":
            number = int(host)
            port = int(lab.controller_urls[number].rpartition(":")[2])
            return sabotage.controller(lab, number), lambda: lab.start_controller(number, port)
        if kind == "qemu":
            return self._qemu(*where), lambda: None
        victims: dict[str, Callable[[], tuple[Victim, Callable[[], object]]]] = {
            "nats-server": lambda: (sabotage.nats_server(lab), lambda: sabotage.start_nats(lab)),
            "tgtd": lambda: (sabotage.tgtd(lab), lambda: None),
            "agent": lambda: (sabotage.agent(lab, host), lambda: lab.start_agent(host)),
            "libvirtd": lambda: (sabotage.libvirtd(lab, host), lambda: sabotage.start_libvirtd(lab, host)),
            "ovsdb-server": lambda: (
                sabotage.ovsdb_server(lab, host), lambda: sabotage.start_ovsdb_server(lab, host)),
            "ovs-vswitchd": lambda: (
                sabotage.ovs_vswitchd(lab, host), lambda: sabotage.start_ovs_vswitchd(lab, host)),
            "postgresql": lambda: (sabotage.postmaster(lab), lab.database.start),
        }  # fmt: skip
        return victims[kind]()

    def _hang(self, victim: Victim) -> Callable[[], None]:
        if victim.what == "postmaster":
            victim = sabotage.postgresql(self._lab)
        sabotage.freeze(victim)

        def thaw() -> None:
            with suppress(LabError):  # it ended in the meantime: a QEMU whose migration failed
                sabotage.thaw(victim)

        return thaw

    def _qemu(self, guest: str, role: str) -> Victim:
        """The guest's QEMU where it runs; or, as soon as it is on its way, the one that waits for its memory."""
        deadline = time.monotonic() + ON_ITS_WAY_S
        while True:
            there = [host for host in self._lab.hosts if self._has_qemu(host, guest)]
            if not there:
                raise LabError(f"there is no QEMU of {guest}")
            paused = [host for host in there if guest not in self._running(host)]
            wanted = there if role == "source" else paused
            if role == "source" and len(paused) < len(there):
                wanted = [host for host in there if host not in paused]
            if wanted:
                return sabotage.qemu(self._lab, wanted[0], guest)
            if time.monotonic() > deadline:
                raise LabError(f"{guest} is not on its way anywhere")
            self._over.wait(0.2)

    def _has_qemu(self, host: str, guest: str) -> bool:
        try:
            return bool(sabotage.qemu(self._lab, host, guest).pids())
        except LabError:
            return False

    def _running(self, host: str) -> list[str]:
        with suppress(LabError):
            return self._lab.hosts[host].virsh("list", "--name", "--state-running", timeout=3).split()
        return []

    # links

    def _break_link(self, fault: str, kind: str, host: str) -> Callable[[], None]:
        link = self._link(kind, host)
        with self._lock:
            self._break(fault, link)
            self._links.append((fault, link))
        return lambda: self._mend(fault, link)

    def _mend(self, fault: str, link: links.Link) -> None:
        with self._lock:
            self._links.remove((fault, link))
            links.mend(link)
            for other in self._links:  # it takes the rules of every link that ends there away
                self._break(*other)

    @staticmethod
    def _break(fault: str, link: links.Link) -> None:
        {"cut": links.cut, "drop": links.drop}[fault](link)

    def _link(self, kind: str, host: str) -> links.Link:
        """Of the host as a client: its streams and its libvirtd's connections go to the other one."""
        here = self._lab.hosts[host]
        other = next(each for name, each in self._lab.hosts.items() if name != host)
        if kind in ("stream", "control"):
            return {"stream": links.stream_link, "control": links.control_link}[kind](here, other)
        return {"bus": links.bus_link, "storage": links.storage_link}[kind](self._lab, here)

    # a bus that closes slow clients

    def _flood(self, host: str) -> Callable[[], None]:
        """An agent hangs and is sent more than it can hold, until the bus closes its connection."""
        victim = sabotage.agent(self._lab, host)
        sabotage.freeze(victim)
        try:
            sent = flood(self._lab, f"sterna.agent.{host}.cast.flood")
            self._timeline.note("flooded", host=host, bytes=sent)
        except (OSError, LabError) as error:
            self._timeline.note("fault missed", fault="flood", part=f"slow-client {host}", error=str(error))

        def thaw() -> None:
            with suppress(LabError):
                sabotage.thaw(victim)

        return thaw

    # the end

    def heal_everything(self) -> None:
        """Whatever a strike left broken works again: for the end of a run, however it ended."""
        lab = self._lab
        with self._lock:
            for host in lab.hosts:
                for kind in ("stream", "control", "bus", "storage"):
                    links.mend(self._link(kind, host))
            self._links.clear()
        kinds = ["nats-server", "tgtd", *(f"controller {number}" for number in lab.controller_urls)]
        kinds += [f"{daemon} {host}" for daemon in HOST_DAEMONS for host in lab.hosts]
        kinds += ["postgresql"] if lab.has_postgresql else []
        for part in kinds:
            kind, *where = part.split(" ")
            victim, start = self._victim(kind, where)
            victim = sabotage.postgresql(lab) if kind == "postgresql" else victim
            try:
                sabotage.thaw(victim)
            except LabError as error:
                self._timeline.note("started at the end", part=part, why=str(error))
                start()
        for guest in lab.guest_records():
            for host in lab.hosts:
                with suppress(LabError):
                    sabotage.thaw(sabotage.qemu(lab, host, guest))


def flood(lab: Lab, subject: str) -> int:
    """Publish on a subject more than a client that does not read can be sent; how many bytes it was."""
    message = f"PUB {subject} {FLOOD_MESSAGE}\r\n".encode() + b"x" * FLOOD_MESSAGE + b"\r\n"
    sent = 0
    with lab.outer.open_socket(socket.AF_INET, socket.SOCK_STREAM) as bus:
        bus.settimeout(30)
        bus.connect((LAB_ADDRESS, BUS_PORT))
        bus.sendall(b'CONNECT {"verbose":false,"pedantic":false,"name":"flood"}\r\n')
        while sent < FLOOD_BYTES:
            bus.sendall(message)
            sent += FLOOD_MESSAGE
        bus.sendall(b"PING\r\n")
        while b"PONG" not in bus.recv(65536):
            pass
    return sent
