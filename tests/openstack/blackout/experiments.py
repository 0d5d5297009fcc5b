"""What is measured, each on the hosts it is given: samples out."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.experiments import LINK_MIB_S, shape
from rich.console import Console

from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from tests.openstack.blackout import others
from tests.openstack.blackout.arms import Arm, Sterna
from tests.openstack.blackout.sample import Sample
from tests.openstack.neutron_hosts import NeutronHosts

KINDS: tuple[type[Arm], ...] = (
    Sterna, others.Nova, others.NovaAfter, others.Unmarked, others.EarlyPass, others.MarkedEarlyPass,
    others.MarkedFirstPass, others.BothMarkedFirstPass, others.LastPass,
    others.MarkedLastPass, others.Tagged, others.ActivatedThenTagged,
)  # fmt: skip
ARMS: dict[str, type[Arm]] = {kind.name: kind for kind in KINDS}
LATE_S = (0, 1, 5, 20)
PATIENCE_S = 30
"""P12's, where the agent is late: more than it is late by."""


@dataclass(frozen=True)
class Asked:
    """What is wanted of a run."""

    rounds: int
    arms: Sequence[str]
    console: Console


def quick(hosts: NeutronHosts, asked: Asked) -> list[Sample]:
    """The copy is over before an agent has looked, mostly."""
    for host in hosts.lab.hosts.values():
        host.run(["tc", "qdisc", "del", "dev", "mgmt0", "root"], check=False)
    return _interleaved(hosts, asked)


def order(hosts: NeutronHosts, asked: Asked) -> list[Sample]:
    """The copy lasts about as long as an agent's sleep between two looks."""
    shape(hosts.lab, LINK_MIB_S)
    return _interleaved(hosts, asked)


def _interleaved(hosts: NeutronHosts, asked: Asked) -> list[Sample]:
    """Each round moves each arm's guest once, in random order; the first round is not counted."""
    for host in hosts.lab.hosts:
        hosts.keep_network_on(host)
    arms = [ARMS[name](hosts) for name in asked.arms]
    chance, samples = random.Random(5), []
    for number in range(-1, asked.rounds):
        for arm in chance.sample(arms, k=len(arms)):
            sample = arm.measure(number)
            asked.console.print(str(sample))
            if number >= 0:
                samples.append(sample)
    for arm in arms:
        hosts.lab.remove_vm(arm.guest.name)
    return sorted(samples, key=lambda sample: sample.arm)


def late(hosts: NeutronHosts, asked: Asked) -> list[Sample]:
    """The destination's network agent sleeps through the port's making, and wakes so many seconds after it."""
    shape(hosts.lab, LINK_MIB_S)
    hosts.restart_agents(vif_plugging_timeout_s=PATIENCE_S)
    arm, samples = Sterna(hosts), []
    arm.measure(-1)  # it begins on a port that libvirt plugged, the normal way
    for number in range(max(2, asked.rounds // 3)):
        for late_s in LATE_S:
            with stopped(hosts.lab.hosts[arm.there]) as raise_if_aborted:
                arm.meanwhile = _waking(arm, raise_if_aborted, late_s)
                sample = arm.measure(number)
            sample.arm = f"{late_s} s late"
            asked.console.print(str(sample))
            samples.append(sample)
    return samples


def _waking(arm: Sterna, raise_if_aborted: Callable[[], None], late_s: float) -> Callable[[str, str], None]:
    def meanwhile(migration: str, there: str) -> None:
        arm.fleet.wait_for_row(there, "return-result", migration)  # P11: the port is made
        time.sleep(late_s)
        raise_if_aborted()

    return meanwhile


@contextmanager
def stopped(host: LabHost) -> Iterator[Callable[[], None]]:
    """The host's network agent does nothing until it is told to go on, at the end of the block at the latest."""
    pids = [pid for pid, argv in host.inside.processes() if any("neutron-openvswitch-agent" in w for w in argv)]
    if not pids:
        raise LabError(f"no network agent runs on {host.name}")

    def raise_if_aborted() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield raise_if_aborted
    finally:
        raise_if_aborted()


EXPERIMENTS: dict[str, Callable[[NeutronHosts, Asked], list[Sample]]] = {
    "quick": quick,
    "order": order,
    "late": late,
    "late-hybrid": late,
}
FIREWALLS = dict.fromkeys(EXPERIMENTS, "noop") | {"late-hybrid": "iptables_hybrid"}
"""The network agents' firewall driver of each; it says how Neutron wants ports plugged."""
