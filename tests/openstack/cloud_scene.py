"""A guest with a Neutron port and two Cinder volumes on two hosts, and what must be true of it in the world."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sterna.domain.step import Step
from sterna.lab.guest_view import Guest
from sterna.migration.context import Context
from sterna.migration.flow import DESTINATION, DESTINATION_POST, SOURCE
from tests.e2e.conftest import Fleet
from tests.lab_state import state
from tests.openstack.cinder_facts import Volumes
from tests.openstack.neutron_hosts import FIRST_GUEST, NeutronHosts

STATE = state("cloud")
DEATH_S = 60.0
DEAD_VLAN = 4095
"""Where a network agent puts what it does not know."""
SLOW = 32 << 20
"""bytes/s of a copy that lasts two or three seconds."""


class Scene:
    """The hosts, one guest, its port, its volumes."""

    def __init__(self, hosts: NeutronHosts) -> None:
        self.hosts, self.lab, self.fleet = hosts, hosts.lab, Fleet(hosts.lab)
        self.volumes = Volumes(hosts.lab, hosts.servers, 2)
        self.port = hosts.make_port("host1", *FIRST_GUEST)
        self.guest: Guest = hosts.lab.create_vm(
            "tern", "host1", dirty_mib_s=10, disks=self.volumes.specs, port_id=self.port
        )
        self.volumes.attach(self.guest.uuid, "host1")
        hosts.servers.ask(lambda c: c.network.update_port(self.port, device_id=self.guest.uuid))
        self.boot = self.guest.status().boot_id

    @property
    def here(self) -> str:
        """Where the guest runs, by libvirt's word."""
        (host,) = self.lab.hosts_running("tern")
        return host

    def host(self, role: str) -> str:
        """The host that is the source, or the destination, of a move that begins now."""
        return self.here if role == "source" else self.fleet.other(self.here)

    def start(self, **more: object) -> str:
        """Begin a move to the other host; it must be accepted."""
        self.lab.wait_ready()
        return self.fleet.started("tern", self.fleet.other(self.here), **more)

    def end(self, migration: str) -> dict[str, Any]:
        """Its record, once neither agent has anything left to do for it."""
        seen = self.fleet.wait(migration)
        self.fleet.wait_closed(migration)
        return seen

    def must_complete(self, migration: str) -> None:
        """Wait for its end. Where that is another one, everything both hosts journaled is told."""
        seen = self.end(migration)
        story = "\n".join(str(item) for item in self.fleet.timeline(migration))
        assert seen["status"] == "completed", f"{seen['reason']} {seen.get('error')}\n{story}"

    def move(self, **more: object) -> dict[str, Any]:
        """From the request to the end."""
        return self.end(self.start(**more))

    @contextmanager
    def forced(self, rules: dict[str, list[dict[str, Any]]]) -> Iterator[None]:
        """Forced faults by host, for as long as the block lasts."""
        for host, each in rules.items():
            self.fleet.fault(host, each)
        try:
            yield
        finally:
            for host in rules:
                self.fleet.fault(host, None)

    def await_death(self, host: str, act: Callable[[], str]) -> str:
        """`act`'s answer, once the agent that lived on `host` before has ended."""
        pid = self.lab.agent_pid(host)
        assert pid is not None
        watched = os.pidfd_open(pid)
        try:
            migration = act()
            dead = select.select([watched], [], [], DEATH_S)[0]
        finally:
            os.close(watched)
        assert dead, f"it never came to that step: {self.fleet.timeline(migration)[-6:]}"
        return migration

    def wired(self, host: str) -> bool:
        """Has the network agent there given the guest's port a VLAN of its own?"""
        (port,) = self.fleet.taps(host, self.guest)
        return port["tag"] not in (None, DEAD_VLAN)

    def must_be_on(self, host: str) -> None:
        """Neutron, Cinder, tgt, Open vSwitch and libvirt agree, each asked itself; and the guest is well."""
        assert self.lab.hosts_running("tern") == [host]
        assert self.hosts.bindings(self.port) == [(host, "ACTIVE", "ovs")]
        assert "migrating_to" not in self.hosts.port(self.port)["binding:profile"]
        self.fleet.eventually(lambda: self.hosts.port(self.port)["status"] == "ACTIVE")
        self.volumes.must_be_only(host)
        other = self.fleet.other(host)
        assert self.fleet.taps(other, self.guest) == []
        assert "tern" not in self.lab.hosts[other].virsh("list", "--all", "--name").split()
        self.fleet.eventually(lambda: self.wired(host))
        status = self.guest.status(timeout=30.0)
        assert status.clean, status.last_error
        assert status.boot_id == self.boot


# ------------------------------------------------------------ cases


@dataclass(frozen=True)
class At:
    """One agent, right before or right after a step acts: its intent is journaled, its outcome is not."""

    role: str
    step: str
    moment: str

    def __str__(self) -> str:
        return f"{self.role} {self.moment} {self.step}"

    def rules(self, scene: Scene, action: str) -> dict[str, list[dict[str, Any]]]:
        """For `Scene.forced`."""
        return {scene.host(self.role): [{"step": self.step, "moment": self.moment, "action": action}]}


NEUTRONS = (
    "prepare-bindings", "network-vif-plugged", "copy", "remove-vifs-at-source",
    "read-network-info", "plug-vifs", "activate-bindings",
    "give-bindings-back", "withdraw-destination-bindings", "remove-vifs", "withdraw-bindings",
)  # fmt: skip
"""Steps that Neutron and its agents have a part in: what follows them is tried with each way to plug."""
ASKS = (*NEUTRONS, "pre-live-migration", "detach-volumes", "attach-volumes", "connect-volumes")
"""Steps during which Neutron or Cinder is asked."""
TURNING = ("give-bindings-back", "remove-volume-connection", "withdraw-destination-bindings")
TURNING_THERE = ("disconnect-volumes-here", "terminate-connections", "remove-vifs", "withdraw-bindings")


def failures() -> list[At]:
    """Every step before the pivot, on both hosts; the end of the copy IS the pivot."""
    found = _each("source", SOURCE.until_pivot) + _each("destination", DESTINATION.until_pivot)
    return [at for at in found if at != At("source", "copy", "after")]


def kills() -> list[At]:
    """Every step of both hosts, from the first to the last.

    But P1: an agent that dies before it dies before the request is answered (tests/chaos has that one).
    """
    there = (*DESTINATION.until_pivot, *DESTINATION_POST.after_pivot)
    return _each("source", (*SOURCE.until_pivot[1:], *SOURCE.after_pivot)) + _each("destination", there)


def kills_in_rollback() -> list[At]:
    """The steps of a rollback that ask a service, or undo what one was asked for."""
    steps = [("source", name) for name in TURNING] + [("destination", name) for name in TURNING_THERE]
    return [At(role, name, moment) for role, name in steps for moment in ("before", "after")]


def _each(role: str, steps: Iterable[type[Step[Context, Any, Any]]]) -> list[At]:
    """Before each of them, and after those that ask a service."""
    return [
        At(role, step.name, moment)
        for step in steps
        for moment in ("before", "after")
        if moment == "before" or step.name in ASKS
    ]
