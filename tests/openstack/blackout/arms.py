"""A guest with a port of its own, and a way to move it: what all ways have in common, and Sterna's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from tests.e2e.conftest import Fleet
from tests.openstack.blackout.sample import GAP_MS, Sample
from tests.openstack.neutron_hosts import NeutronHosts

MAX_DOWNTIME_MS = 100
LOOK_S = 2.2
"""An agent looks every two seconds: what it makes of a move shows within this."""


class Arm:
    """A guest with a port of its own, and a way to move it."""

    name = ""
    passes_ms: Sequence[float] = ()
    """How long before the guest's stop each pass of the last copy began, where it listened."""

    def __init__(self, hosts: NeutronHosts) -> None:
        self.hosts, self.lab, self.fleet = hosts, hosts.lab, Fleet(hosts.lab)
        self.here, number = "host1", hosts.next_guest()
        self.port = hosts.make_port("host1", *hosts.address_of(number))
        self.guest = self.lab.create_vm(f"bench-{number}", "host1", dirty_mib_s=20, port_id=self.port, pace="busy")
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
        sample = Sample(self.name, number, self.downtime_ms(), ping.longest_gap_ms, total_ms)
        sample.waited_ms, sample.ahead_ms = self.waited_ms(), self.ahead_ms()
        sample.gaps_ms = [gap.length_ms for gap in ping.gaps if gap.length_ms > GAP_MS]
        sample.passes_ms = list(self.passes_ms)
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

    def ahead_ms(self) -> float | None:
        """How long before the guest's stop it asked for the activation."""
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
