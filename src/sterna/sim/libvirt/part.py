"""What the parts of `SimHypervisor` share: the host, and the domain that a call is about."""

from __future__ import annotations

from collections.abc import Callable

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Observation
from sterna.sim.libvirt import evidence, qemu
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Job, SimDomain
from sterna.sim.world.world import World


class SimPart:
    """One host's libvirt, as a part of it is asked."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]
        self._memory = evidence.Memory(world, host)

    async def _called(self) -> SimHost:
        """Reach libvirtd, which takes its time. Raises Unreachable before or after."""
        self._host.require_libvirtd()
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        self._host.require_libvirtd()
        return self._host

    def _require(self, here: SimHost, uuid: str) -> SimDomain:
        if uuid not in here.domains:
            raise NotFound(f"{here.name}: Domain not found: no domain with matching uuid '{uuid}'")
        return here.domains[uuid]

    def _look(self, uuid: str, domain: SimDomain | None) -> Observation:
        return evidence.observe(domain, seen_running=self._memory.saw(uuid))

    def _job(self, here: SimHost, uuid: str) -> Job | None:
        domain = here.domains.get(uuid)
        return domain.job if domain is not None else None

    def _check_epoch(self, domain: SimDomain, epoch: int) -> None:
        if domain.definition.epoch != epoch:
            raise Conflict(
                f"{self._host.name}: guest {domain.uuid} carries epoch {domain.definition.epoch}, not {epoch}"
            )

    def _set_interlock(self, domain: SimDomain, on: bool) -> None:
        if domain.interlocked != on:
            domain.interlocked = on
            self._world.tell(self._host.name, "domain", domain.uuid, f"interlock {'set' if on else 'released'}")

    def _destroy(self, domain: SimDomain) -> None:
        qemu.end(self._world, self._host, domain, reason="destroyed", event="stopped", detail="destroyed")


def ask(act: Callable[[], None]) -> None:
    """Do it; libvirt's refusal becomes Permanent."""
    try:
        act()
    except qemu.LibvirtSays as refusal:
        raise Permanent(f"libvirt refused: {refusal}") from refusal
