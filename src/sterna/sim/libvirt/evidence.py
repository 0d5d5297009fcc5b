"""What one agent's hypervisor adapter can know of a guest: the same evidence as the libvirt adapter has.

The world knows whether a guest ever ran on a host; an agent knows what libvirt tells it and what it has itself seen
since it was started. A simulation that reported more would prove too much.
"""

from __future__ import annotations

from sterna.domain.model import GuestState, Observation
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.world.things import SimDomain
from sterna.sim.world.world import World

_RUNS = ("resumed", "resumed-migrated", "resumed-postcopy")
_COMES_OR_WENT = ("started-incoming", "stopped-migrated", "undefined")


class Memory:
    """Which guests this process has seen running here, in their present stay. Gone when the process dies."""

    def __init__(self, world: World, host: str) -> None:
        here = world.hosts[host]
        self._ran = {d.uuid for d in here.domains.values() if d.running and here.libvirtd_up}
        world.events.follow(host, self.note)

    def note(self, uuid: str, event: GuestEvent) -> None:
        """An event of any guest of the host."""
        if event.kind in _RUNS:
            self._ran.add(uuid)
        elif event.kind in _COMES_OR_WENT:
            self._ran.discard(uuid)

    def forget(self, uuid: str) -> None:
        """Its stay here is over."""
        self._ran.discard(uuid)

    def saw(self, uuid: str) -> bool:
        """Has it been seen running?"""
        return uuid in self._ran


def observe(domain: SimDomain | None, *, seen_running: bool) -> Observation:
    """The observation, with `ran` from evidence: memory, state, and the epoch in an inactive definition.

    That last one can be wrong, to the safe side: a definition whose guest was destroyed before it ever ran.
    """
    if domain is None:
        return Observation(state=GuestState.ABSENT, ran=seen_running)
    epoch = domain.definition.epoch
    ran = domain.ran  # running, or CPU time of its vCPU threads
    if domain.state is GuestState.SHUTOFF:
        ran = epoch is not None and domain.reason != "failed"
    return Observation(
        state=domain.state,
        reason=domain.reason,
        job_active=domain.job is not None,
        epoch=epoch,
        ran=seen_running or ran,
    )
