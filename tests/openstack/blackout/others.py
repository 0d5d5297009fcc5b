"""Other ways to hand a port over, around libvirt's own migration: Nova's order, and what ADR 11 did not take.

libvirt copies, and plugs the NIC with the incoming guest. What is done in the meantime follows libvirt's events.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sterna.lab.errors import LabError
from tests.openstack.blackout.arms import MAX_DOWNTIME_MS, Arm
from tests.openstack.neutron_hosts import NeutronHosts

LISTENING_S = 0.5
"""Until virsh listens; it does not say when."""
PASS_MS = 20
"""QEMU counts once more as it stops the guest: a pass that begins so shortly before is none."""
DEAD_VLAN = "4095"
"""Where a network agent puts what it does not know."""


class Nova(Arm):
    """Nova's requests in Nova's order.

    The binding becomes ACTIVE when the source's libvirt says that the guest was stopped: as early as Nova can.
    """

    name = "nova"
    marks, marks_both, at_the_stop = True, False, True

    def __init__(self, hosts: NeutronHosts) -> None:
        self.passes_ms = []
        self.asked: float | None = None
        self.stopped = 0.0
        super().__init__(hosts)

    def move(self, there: str) -> None:
        port, here, to = f"/ports/{self.port}", self.host(self.here), self.host(there)
        profile = {"profile": {"migrating_to": there}} if self.marks_both else {}
        self.ask("post", f"{port}/bindings", {"binding": {"host": there, **profile}})
        if self.marks:
            self.ask("put", port, {"port": {"binding:profile": {"migrating_to": there}}})
        here.virsh("migrate-setmaxdowntime", self.guest.name, str(MAX_DOWNTIME_MS))
        flags = ("--live", "--p2p", "--persistent", "--undefinesource")
        stream = ("--migrateuri", f"tcp://{to.address}")
        self.asked = None
        with self.listening(there):
            here.virsh("migrate", *flags, self.guest.name, to.peer_uri, *stream, timeout=90)
        if self.asked is None:
            self.activate(there)
        self.ask("delete", f"{port}/bindings/{self.here}")
        marked = {} if self.marks else {"moved_to": there}  # a change, or no agent hears of the deletion
        self.ask("put", port, {"port": {"binding:profile": marked}})

    def ahead_ms(self) -> float | None:
        return None if self.asked is None else (self.stopped - self.asked) * 1000

    @contextmanager
    def listening(self, there: str) -> Iterator[None]:
        """What happens within the block lets `pass_begins` and `stops` be called."""
        argv = ["stdbuf", "-oL", "virsh", "event", "--domain", self.guest.name, "--all", "--loop"]
        virsh, begun, doing = self.host(self.here).popen(argv), list[float](), list[Future[None]]()
        pool = ThreadPoolExecutor(max_workers=3)

        def do(act: Callable[[str], None]) -> None:
            doing.append(pool.submit(act, there))  # beside: the next event is not to wait for it

        def listen() -> None:
            for line in virsh.stdout or ():
                if "'migration-iteration'" in line:
                    begun.append(time.monotonic())
                    self.pass_begins(len(begun), do)
                elif "Suspended Migrated" in line:
                    self.stopped = time.monotonic()
                    self.stops(do)
                    return

        listener = pool.submit(listen)
        time.sleep(LISTENING_S)
        try:
            yield
            listener.result(timeout=5)
            self.passes_ms = [(self.stopped - at) * 1000 for at in begun]
            for done in doing:
                done.result(timeout=30)
        except TimeoutError:
            raise LabError("libvirt never said that the guest was stopped") from None
        finally:
            virsh.kill()
            virsh.communicate()
            pool.shutdown(wait=False)

    def pass_begins(self, number: int, do: Callable[[Callable[[str], None]], None]) -> None:
        """QEMU begins to go through the guest's memory, for the so-manieth time."""

    def stops(self, do: Callable[[Callable[[str], None]], None]) -> None:
        """The guest was stopped for its switch-over."""
        if self.at_the_stop and self.asked is None:
            self.asked = time.monotonic()
            do(self.activate)

    def activate(self, there: str) -> None:
        self.asked = self.asked or time.monotonic()
        self.ask("put", f"/ports/{self.port}/bindings/{there}/activate")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        more = {} if body is None else {"json": body}
        answer = self.hosts.servers.ask(lambda c: getattr(c.network, method)(path, **more))
        if answer.status_code >= 300:
            raise LabError(f"{method} {path}: {answer.status_code} {answer.text}")


class NovaAfter(Nova):
    """As above, but activated when libvirt's call has returned."""

    name = "nova, after"
    at_the_stop = False


class Unmarked(Nova):
    """As Nova at the stop, but nothing says where the port goes, so that no agent can wire it ahead."""

    name = "unmarked"
    marks = False


class EarlyPass(Unmarked):
    """Activated as QEMU begins to send for the second time what was written meanwhile: a third of a second before
    the stop over a link of 100 MiB/s. Nothing says where the port goes."""

    name = "2nd pass"

    def pass_begins(self, number: int, do: Callable[[Callable[[str], None]], None]) -> None:
        if number == self.chosen() and self.asked is None:
            self.asked = time.monotonic()
            do(self.activate)

    def chosen(self) -> int:
        return 2


class MarkedEarlyPass(EarlyPass):
    """The same, and both hosts' agents are told beforehand where the port goes, as Nova tells them."""

    name = "2nd pass, marked"
    marks = True


class MarkedFirstPass(MarkedEarlyPass):
    """Activated as the copy begins: what the source's agent makes of a port that its guest still uses."""

    name = "1st pass, marked"

    def chosen(self) -> int:
        return 1


class BothMarkedFirstPass(MarkedFirstPass):
    """The same, and the destination's binding says it as well, as with Sterna: its agent wires the port whichever
    of the two is active."""

    name = "1st pass, both"
    marks_both = True


class LastPass(EarlyPass):
    """Activated as the last pass before the stop begins.

    Which one is the last cannot be known as it begins: it is taken to be that of this guest's move that had the
    fewest. So the first move, which is not counted, is activated at the stop.
    """

    name = "last pass"
    fewest = 0

    def chosen(self) -> int:
        return self.fewest

    def move(self, there: str) -> None:
        super().move(there)
        whole = sum(ms >= PASS_MS for ms in self.passes_ms)
        self.fewest = min(whole, self.fewest or whole)


class MarkedLastPass(LastPass):
    """The same, and the agents are told beforehand."""

    name = "last pass, marked"
    marks = True


class Tagged(Unmarked):
    """As the guest stops its port is tagged by us, and the binding activated: the agent finds it as it wants it.

    The VLAN is the one that the destination's agent has for the network, as another port of it on that host shows.
    """

    name = "tagged by us"
    switch: socket.socket | None = None
    wire = b""

    def pass_begins(self, number: int, do: Callable[[Callable[[str], None]], None]) -> None:
        if number == 1:
            do(self.look_up)

    def stops(self, do: Callable[[Callable[[str], None]], None]) -> None:
        super().stops(do)
        self.tag()

    def tag(self) -> None:
        """One message to the switch's database, and its answer."""
        if self.switch is None:
            raise LabError(f"{self.name}: the guest stopped before its port was looked up")
        self.switch.sendall(self.wire)
        answer = json.loads(self.switch.recv(65536))
        if answer["error"] or answer["result"] != [{"count": 1}]:
            raise LabError(f"{self.name}: {answer}")
        self.switch.close()
        self.switch = None

    def look_up(self, there: str) -> None:
        """All that tagging needs, while nothing hurries."""
        host, find = self.host(there), ["ovs-vsctl", "--bare", "--no-headings"]
        port, network = f"external_ids:iface-id={self.port}", f"other_config:net_uuid={self.hosts.network_id}"
        device = host.run([*find, "--columns=name", "find", "Interface", port]).stdout.strip()
        vlans = set(host.run([*find, "--columns=tag", "find", "Port", network]).stdout.split()) - {DEAD_VLAN}
        if not device or len(vlans) != 1:
            raise LabError(f"{there}: port {device!r}, VLANs {vlans}")
        none = ["set", []]
        row = {"tag": int(vlans.pop()), "vlan_mode": none, "trunks": none}
        update = {"op": "update", "table": "Port", "where": [["name", "==", device]], "row": row}
        self.wire = json.dumps({"id": 1, "method": "transact", "params": ["Open_vSwitch", update]}).encode()
        switch = socket.socket(socket.AF_UNIX)
        switch.settimeout(5)
        switch.connect(f"/proc/{host.inside.init.pid}/root/run/openvswitch/db.sock")
        self.switch = switch


class ActivatedThenTagged(Tagged):
    """As the guest stops the binding is activated, and the port tagged once Neutron has answered.

    No agent finds a tag where it expects none.
    """

    name = "activated, tagged"

    def stops(self, do: Callable[[Callable[[str], None]], None]) -> None:
        self.asked = time.monotonic()
        do(self.activate)

    def activate(self, there: str) -> None:
        super().activate(there)
        self.tag()
