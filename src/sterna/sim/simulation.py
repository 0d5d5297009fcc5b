"""The whole simulation: the world, with guests that live in it. What tests and the contract suites build."""

from __future__ import annotations

from sterna.sim.libvirt import guests, qemu
from sterna.sim.world import snapshot
from sterna.sim.world.host import SimHost
from sterna.sim.world.world import World


class SimWorld(World):
    """Hosts, what joins them, and the guests that run on them."""

    add_vm = guests.add_vm
    guest_writes = guests.guest_writes
    kill_qemu = guests.kill_qemu
    shut_down_guest = guests.shut_down_guest
    start = guests.start
    power_off = guests.power_off
    power_on = guests.power_on

    def snapshot(self, host: str) -> snapshot.HostSnapshot:
        """Everything real on that host now."""
        return snapshot.take(self, host)

    def libvirtd_started(self, host: SimHost) -> None:
        """libvirtd is back: incoming guests nobody feeds any more are ended, as libvirt does when it restarts."""
        super().libvirtd_started(host)
        for domain in tuple(host.domains.values()):
            if domain.incoming and domain.job is None:
                qemu.end(self, host, domain, reason="failed", event="stopped", detail="failed")
