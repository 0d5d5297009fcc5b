"""How long nobody reaches a guest with a Neutron port while it moves, with real Open vSwitch agents (normal plug).

    python -m tests.openstack.blackout [quick] [order] [late] [--rounds N]

`quick`: Sterna, and Nova's requests to Neutron in Nova's order around libvirt's own migration, interleaved at
random in one run, over a link that nothing slows down. `order`: the same over a link of 100 MiB/s, so that an agent
has time to look while the copy lasts. `late`: Sterna, while the destination's network agent is stopped and goes on
0, 1, 5 or 20 s after the port was made there. Prints tables and writes every sample to out/bench/. As root, on a
machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.experiments import LINK_MIB_S, shape
from rich.console import Console
from rich.table import Table

from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from tests.e2e.conftest import Fleet
from tests.openstack.neutron_hosts import NeutronHosts

STATE, OUT = Path(".lab-bench"), Path("out/bench")
MAX_DOWNTIME_MS = 100
LATE_S = (0, 1, 5, 20)
LOOK_S = 2.2
"""An agent looks every two seconds: what it makes of a move shows within this."""
LISTENING_S = 0.5
"""Until virsh listens; it does not say when."""
MADE, FIRST_BYTE = itertools.count(), 20
"""The lab gives its guests addresses and MACs in turn; their ports are made before them."""
PATIENCE_S = 30
"""P12's, where the agent is late: more than it is late by."""


@dataclass
class Sample:
    """One move as seen from outside. Times in ms."""

    arm: str
    number: int
    downtime_ms: float
    """As the destination's libvirt tells."""
    blackout_ms: float
    """The longest gap between two replies to pings sent every 5 ms, from the request to `LOOK_S` after the end."""
    total_ms: float
    waited_ms: float | None = None
    """How long Sterna's copy waited for the network agent (P12)."""

    @property
    def excess_ms(self) -> float:
        """What the network adds to the guest's own standstill."""
        return self.blackout_ms - self.downtime_ms


class Arm:
    """A guest with a port of its own, and a way to move it."""

    name = ""

    def __init__(self, hosts: NeutronHosts) -> None:
        self.hosts, self.lab, self.fleet = hosts, hosts.lab, Fleet(hosts.lab)
        number = next(MADE)
        self.here, last = "host1", FIRST_BYTE + number
        self.port = hosts.make_port("host1", f"10.74.0.{last}", f"52:54:00:74:00:{last:02x}")
        self.guest = self.lab.create_vm(f"bench-{number}", "host1", dirty_mib_s=20, port_id=self.port)
        hosts.servers.ask(lambda c: c.network.update_port(self.port, device_id=self.guest.uuid))
        self.await_active()
        self.boot = self.guest.status().boot_id
        self.rest()

    @property
    def there(self) -> str:
        """Where the guest is not."""
        return self.fleet.other(self.here)

    def host(self, name: str) -> LabHost:
        return self.lab.hosts[name]

    def rest(self) -> None:
        """Pause it: it costs the other arms nothing."""
        self.host(self.here).virsh("suspend", self.guest.name)

    def await_active(self) -> None:
        """Until Neutron has heard from the agent of the host that the port is bound to."""
        self.fleet.eventually(lambda: self.hosts.port(self.port)["status"] == "ACTIVE")

    def measure(self, number: int) -> Sample:
        """Move it to the other host. Raises LabError if anything is wrong afterwards."""
        there = self.there
        self.host(self.here).virsh("resume", self.guest.name)
        self.guest.status(timeout=20.0)
        with self.lab.ping(self.guest) as ping:
            began = time.monotonic()
            self.move(there)
            total_ms = (time.monotonic() - began) * 1000
            self.await_active()
            self.guest.status(timeout=60.0)  # reached again, or the gap would have no end
            time.sleep(LOOK_S)
        status = self.guest.status(timeout=20.0)
        bound = self.hosts.bindings(self.port)
        if self.lab.hosts_running(self.guest.name) != [there] or bound != [(there, "ACTIVE", "ovs")]:
            raise LabError(f"{self.name}: the guest is not where it was to be, or its port is not: {bound}")
        if not status.clean or status.boot_id != self.boot:
            raise LabError(f"{self.name}: the guest is not whole: {status}")
        self.here = there
        sample = Sample(self.name, number, self.downtime_ms(), ping.longest_gap_ms, total_ms, self.waited_ms())
        self.rest()
        return sample

    def move(self, there: str) -> None:
        """Return when it has moved and everything is cleaned up."""
        raise NotImplementedError

    def downtime_ms(self) -> float:
        """Of the last job, as the host knows where the guest is now."""
        text = self.host(self.here).virsh("domjobinfo", "--completed", self.guest.name)
        lines = (line.partition(":") for line in text.splitlines())
        return next(float(v.split()[0]) for k, _, v in lines if k.strip() == "Total downtime")

    def waited_ms(self) -> float | None:
        """How long it waited for the agent."""
        return None


class Sterna(Arm):
    """Asked over the API, until both halves are done."""

    name = "sterna"
    migration = ""
    meanwhile: Callable[[str, str], None] | None = None
    """Called with the migration and its destination once it has begun."""

    def move(self, there: str) -> None:
        self.migration = self.fleet.started(self.guest.name, there, max_downtime_ms=MAX_DOWNTIME_MS)
        if self.meanwhile is not None:
            self.meanwhile(self.migration, there)
        seen = self.fleet.wait(self.migration)
        if seen["status"] != "completed":
            raise LabError(f"the migration is {seen['status']}: {seen.get('reason')}")
        self.fleet.wait_closed(self.migration)

    def waited_ms(self) -> float:
        items = self.fleet.timeline(self.migration)
        return next(float(i["duration_ms"]) for i in items if i["row"] == "P12" and i["duration_ms"] is not None)


class Nova(Arm):
    """Nova's requests in Nova's order; libvirt copies, and plugs the NIC with the incoming guest.

    The binding becomes ACTIVE when the source's libvirt says that the guest was stopped: as early as Nova can.
    """

    name = "nova"
    marks, at_the_stop = True, True

    def move(self, there: str) -> None:
        port, here, to = f"/ports/{self.port}", self.host(self.here), self.host(there)
        self.ask("post", f"{port}/bindings", {"binding": {"host": there}})
        if self.marks:
            self.ask("put", port, {"port": {"binding:profile": {"migrating_to": there}}})
        here.virsh("migrate-setmaxdowntime", self.guest.name, str(MAX_DOWNTIME_MS))
        flags = ("--live", "--p2p", "--persistent", "--undefinesource")
        stream = ("--migrateuri", f"tcp://{to.address}")
        with self.activating(there):
            here.virsh("migrate", *flags, self.guest.name, to.peer_uri, *stream, timeout=90)
        self.ask("delete", f"{port}/bindings/{self.here}")
        marked = {} if self.marks else {"moved_to": there}  # a change, or no agent hears of the deletion
        self.ask("put", port, {"port": {"binding:profile": marked}})

    @contextmanager
    def activating(self, there: str) -> Iterator[None]:
        """What happens within the block lets the destination's binding be activated, in time or at its end."""
        if not self.at_the_stop:
            yield
            self.activate(there)
            return
        argv = ["stdbuf", "-oL", "virsh", "event", "--domain", self.guest.name, "--event", "lifecycle", "--loop"]
        listening = self.host(self.here).popen(argv)

        def listen() -> None:
            for line in listening.stdout or ():
                if "Suspended Migrated" in line:
                    self.activate(there)
                    return

        thread = threading.Thread(target=listen, name="listen")
        thread.start()
        time.sleep(LISTENING_S)
        try:
            yield
            thread.join(timeout=5)
            if thread.is_alive():
                raise LabError("libvirt never said that the guest was stopped")
        finally:
            listening.kill()
            listening.communicate()

    def activate(self, there: str) -> None:
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
    """As above at the stop, but nothing says where the port goes, so that no agent can wire it ahead."""

    name = "unmarked"
    marks = False


def quick(hosts: NeutronHosts, rounds: int, console: Console) -> list[Sample]:
    """The copy is over before an agent has looked, mostly."""
    for host in hosts.lab.hosts.values():
        host.run(["tc", "qdisc", "del", "dev", "mgmt0", "root"], check=False)
    return _interleaved(hosts, rounds, console)


def order(hosts: NeutronHosts, rounds: int, console: Console) -> list[Sample]:
    """The copy lasts about as long as an agent's sleep between two looks."""
    shape(hosts.lab, LINK_MIB_S)
    return _interleaved(hosts, rounds, console)


def _interleaved(hosts: NeutronHosts, rounds: int, console: Console) -> list[Sample]:
    """Each round moves each arm's guest once, in random order; the first round is not counted."""
    arms = [kind(hosts) for kind in (Sterna, Nova, NovaAfter, Unmarked)]
    chance, samples = random.Random(5), []
    for number in range(-1, rounds):
        for arm in chance.sample(arms, k=len(arms)):
            sample = arm.measure(number)
            say(console, sample)
            if number >= 0:
                samples.append(sample)
    for arm in arms:
        hosts.lab.remove_vm(arm.guest.name)
    return sorted(samples, key=lambda sample: sample.arm)


def late(hosts: NeutronHosts, rounds: int, console: Console) -> list[Sample]:
    """The destination's network agent sleeps through the port's making, and wakes so many seconds after it."""
    shape(hosts.lab, LINK_MIB_S)
    hosts.restart_agents(vif_plugging_timeout_s=PATIENCE_S)
    arm, samples = Sterna(hosts), []
    for number in range(max(2, rounds // 3)):
        for late_s in LATE_S:
            with stopped(hosts.lab.hosts[arm.there]) as go_on:
                arm.meanwhile = _waking(arm, go_on, late_s)
                sample = arm.measure(number)
            sample.arm = f"{late_s} s late"
            say(console, sample)
            samples.append(sample)
    return samples


def _waking(arm: Sterna, go_on: Callable[[], None], late_s: float) -> Callable[[str, str], None]:
    def meanwhile(migration: str, there: str) -> None:
        arm.fleet.wait_for_row(there, "return-result", migration)  # P11: the port is made
        time.sleep(late_s)
        go_on()

    return meanwhile


@contextmanager
def stopped(host: LabHost) -> Iterator[Callable[[], None]]:
    """The host's network agent does nothing until it is told to go on, at the end of the block at the latest."""
    pids = [pid for pid, argv in host.inside.processes() if any("neutron-openvswitch-agent" in w for w in argv)]
    if not pids:
        raise LabError(f"no network agent runs on {host.name}")

    def go_on() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


def say(console: Console, sample: Sample) -> None:
    waited = "" if sample.waited_ms is None else f", waited {sample.waited_ms:.0f} ms for the agent"
    console.print(
        f"{sample.number + 1:3d} {sample.arm:12s} downtime {sample.downtime_ms:4.0f} ms, "
        f"blackout {sample.blackout_ms:5.0f} ms, {sample.excess_ms:+5.0f} ms{waited}"
    )


def table(title: str, samples: Sequence[Sample]) -> Table:
    """Medians of each arm, and the worst of what the network adds."""
    shown = Table(title=title)
    for heading in ("", "moves", "downtime, ms", "blackout, ms", "blackout - downtime, ms", "worst", "waited, ms"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name in dict.fromkeys(sample.arm for sample in samples):
        mine = [sample for sample in samples if sample.arm == name]
        middle = [
            f"{statistics.median(value(s) for s in mine):.0f}"
            for value in (lambda s: s.downtime_ms, lambda s: s.blackout_ms, lambda s: s.excess_ms)
        ]
        waited = [s.waited_ms for s in mine if s.waited_ms is not None]
        last = f"{statistics.median(waited):.0f}" if waited else "-"
        shown.add_row(name, str(len(mine)), *middle, f"{max(s.excess_ms for s in mine):.0f}", last)
    return shown


EXPERIMENTS = {"quick": quick, "order": order, "late": late}


def main() -> int:
    """The benchmark; raises LabError where a move went wrong."""
    asked = argparse.ArgumentParser(prog="tests.openstack.blackout", description=__doc__)
    asked.add_argument("experiment", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; all where none is named")
    asked.add_argument("--rounds", type=int, default=6)
    told = asked.parse_args()
    if unknown := set(told.experiment) - set(EXPERIMENTS):
        asked.error(f"there is no experiment {', '.join(sorted(unknown))}")
    console = Console(soft_wrap=True)
    OUT.mkdir(parents=True, exist_ok=True)
    hosts = NeutronHosts.up(STATE)
    try:
        for name in told.experiment or EXPERIMENTS:
            samples = EXPERIMENTS[name](hosts, told.rounds, console)
            (OUT / f"neutron-{name}.json").write_text(json.dumps([asdict(s) for s in samples], indent=1))
            console.print(table(f"{name}: ML2/OVS, normal plug", samples))
    finally:
        hosts.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
