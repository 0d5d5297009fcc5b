"""What gets lost: the power of a host, the answer of libvirt, a hint; and what an operator declares then."""

from __future__ import annotations

from sterna.domain.journal import Kind
from sterna.domain.model import Data
from sterna.sim.libvirt import guests
from sterna.sim.world.things import Change, SimDomain
from tests.saga.fleet import SimAgent, SimFleet

KEEP_ALIVE_S = 25.0


async def power_cut(fleet: SimFleet, host: str) -> None:
    """Agent, libvirtd and guests of that host are gone at once."""
    await fleet.agents[host].kill()
    guests.power_off(fleet.world, host)


async def power_back(fleet: SimFleet, host: str) -> None:
    guests.power_on(fleet.world, host)
    await fleet.agents[host].start()


async def declare(fleet: SimFleet, dead: str, to: str, method: str = "declare_dead") -> list[Data]:
    answer = await fleet.client.call(to, method, {"host": dead, "at": "now"})
    found: list[Data] = answer["migrations"]
    return found


async def closed(fleet: SimFleet, host: str, limit_s: float = 120) -> None:
    until = fleet.clock.monotonic_ms() + limit_s * 1000
    while not fleet.agents[host].history(fleet.migration).closed:
        assert fleet.clock.monotonic_ms() < until, fleet.agents[host].journal.entries(fleet.migration)[-5:]
        await fleet.clock.sleep(0.5)


def last_status(agent: SimAgent, migration: str) -> tuple[str, str]:
    """The last status in this host's own journal, and its reason."""
    entry = [e for e in agent.journal.entries(migration) if e.kind is Kind.STATUS][-1]
    return entry.data["status"], entry.data["reason"]


def domain(fleet: SimFleet, host: str, vm: str) -> SimDomain | None:
    return fleet.world.hosts[host].domains.get(vm)


def lose_the_answer(fleet: SimFleet) -> None:
    """The answer travels for ever, and after its keep-alive libvirt resumes the source's guest."""
    fleet.world.pace.finish_ms = KEEP_ALIVE_S * 2000

    async def give_up() -> None:
        await fleet.clock.sleep(KEEP_ALIVE_S)
        fleet.world.cut("host1", "host2", kinds=("control",))

    def look(change: Change) -> None:
        if (change.what, change.detail) == ("job", "finished"):
            fleet.world.spawn(give_up())

    fleet.world.watch(look)


async def lost(*hint: object) -> None:
    """The hint of the guest's pause is lost."""
