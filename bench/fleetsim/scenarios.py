"""What happens in a run, and how it must end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.fleetsim.driver import Run
from bench.fleetsim.made import Made

Body = dict[str, Any]
NEVER = 64 << 30
"""Bytes/s that a guest writes which never converges."""
SLOW = 25
"""So many times slower than its host says a slow link is."""
BUS_AWAY_S = 5.0
DOWN_S = 20.0
"""How long a killed controller is away."""


async def nothing(run: Run) -> None:
    """No fault."""


def unchanged(made: Made, hosts: list[str]) -> Made:
    """The fleet as it is made."""
    return made


@dataclass(frozen=True)
class Scenario:
    """One."""

    tells: str
    """In a line."""
    drained: Callable[[int], int]
    """Of so many hosts, how many are the operation's."""
    kind: str = "drain"
    fault: Callable[[Run], Awaitable[None]] = nothing
    prepare: Callable[[Made, list[str]], Made] = unchanged
    """Change the fleet before it is built. It is given the operation's hosts."""
    ends: tuple[str, ...] = ("done",)
    """Statuses in which the operation may end."""
    stays: int = 0
    """VMs that may be left on the operation's hosts."""
    more: Body = field(default_factory=dict)
    """Of the request."""

    def hosts(self, made: Made, seed: int) -> list[str]:
        """The operation's: the same for the same seed."""
        names = sorted(made.hosts)
        chosen = random.Random(seed).sample(names, max(1, min(self.drained(len(names)), len(names) - 1)))  # noqa: S311
        return sorted(chosen)

    def body(self, hosts: list[str], webhook: str) -> Body:
        """The request for its operation."""
        if self.kind == "drain":
            return {"kind": "drain", "hosts": hosts} | self.more
        most = max(1, len(hosts) // 5)
        rolling = {"kind": "rolling", "hosts": hosts, "most_closed": most, "between": {"webhook": webhook}}
        return rolling | self.more


# ------------------------------------------------------------ faults


def _busiest_target(run: Run, *, besides: tuple[str, ...] = ()) -> str:
    """Where most copies go to now, that the operation does not empty."""
    own = {*run.seen.operation["hosts"], *besides}
    counts: dict[str, int] = {}
    for copy in run.crowd.links.copies:
        if copy.target not in own:
            counts[copy.target] = counts.get(copy.target, 0) + 1
    return min(counts, key=lambda host: (-counts[host], host)) if counts else ""


async def _a_third_has_moved(run: Run) -> None:
    whole = sum(vm.host in run.seen.operation["hosts"] for vm in run.made.vms.values())
    await run.until(lambda: run.moved() >= whole / 3 and bool(_busiest_target(run)))


async def target_dies(run: Run) -> None:
    """A host that copies go to."""
    await _a_third_has_moved(run)
    host = _busiest_target(run)
    await run.lose(host)
    await run.declare_dead(host)


async def source_dies(run: Run) -> None:
    """A host that is being emptied."""
    await _a_third_has_moved(run)
    host = run.crowd.links.copies[0].source
    await run.lose(host)
    await run.declare_dead(host)


async def rack_is_lost(run: Run) -> None:
    """All hosts of a rack that copies go to, but for those that are being emptied."""
    await _a_third_has_moved(run)
    rack = run.made.hosts[_busiest_target(run)].rack
    gone = [host for host in run.made.racks()[rack] if host not in run.seen.operation["hosts"]]
    run.note(f"{rack} is lost")
    for host in gone:
        await run.lose(host)
    for host in gone:
        await run.declare_dead(host)


async def link_is_slow(run: Run) -> None:
    """A target's, from the first copy to it on. It goes on saying what it said."""
    await run.until(lambda: bool(_busiest_target(run)))
    host = _busiest_target(run)
    run.crowd.links.set_room(host, run.crowd.links.room(host) / SLOW)
    run.note(f"the link of {host} is {SLOW} times slower from now on")


async def controller_is_killed(run: Run) -> None:
    """The one that carries the operation out is killed, and started again after a while."""
    await _a_third_has_moved(run)
    victim = await _holder(run)
    run.controllers[victim].kill()
    run.note(f"controller {victim} is killed")
    await asyncio.sleep(DOWN_S)
    run.controllers[victim].start()
    run.note(f"controller {victim} is started again")


async def _holder(run: Run) -> int:
    """Which controller has said that it carries the operation out: its log has it."""
    said = f"operation={run.seen.operation['id']}"
    for number in range(len(run.controllers)):
        log = (run.folder / f"controller{number}.log").read_text(errors="replace")
        if any("is carried out here" in line and said in line for line in log.splitlines()):
            return number
    return 0


async def bus_restarts(run: Run) -> None:
    """nats-server is killed, and started again after a while."""
    await _a_third_has_moved(run)
    assert run.bus_server is not None
    run.bus_server.kill()
    run.note("nats-server is killed")
    await asyncio.sleep(BUS_AWAY_S)
    run.bus_server.start()
    run.note("nats-server is started again")


def one_never_converges(made: Made, hosts: list[str]) -> Made:
    """The largest VM on the operation's hosts."""
    largest = max((vm for vm in made.vms.values() if vm.host in hosts), key=lambda vm: (vm.memory_bytes, vm.uuid))
    writes = replace(largest, dirty_bytes_s=float(NEVER), stubborn=True)
    return replace(made, vms=made.vms | {largest.uuid: writes})


def _one(hosts: int) -> int:
    return 1


def _few(hosts: int) -> int:
    return max(2, hosts // 20)


def _fifty(hosts: int) -> int:
    return min(50, hosts // 5)


SCENARIOS: dict[str, Scenario] = {
    "drain-one": Scenario("one host is drained", _one),
    "drain-many": Scenario("50 hosts are drained together, of small fleets a fifth", _fifty),
    "rolling": Scenario("half of the hosts are rebooted, a fifth of them at once", lambda n: n // 2, "rolling"),
    "target-dies": Scenario("a host that VMs go to dies", _few, fault=target_dies),
    "source-dies": Scenario("a host that is being emptied dies", _few, fault=source_dies, ends=("incomplete",)),
    "rack-lost": Scenario("a rack that VMs go to is lost", _few, fault=rack_is_lost, stays=10**9,
                          ends=("done", "incomplete")),
    "never-converges": Scenario("one VM never converges", _one, prepare=one_never_converges, stays=1,
                                ends=("incomplete",)),
    "slow-link": Scenario("one link is far slower than its host says", _few, fault=link_is_slow),
    "controller-dies": Scenario("one controller of two is killed", _few, fault=controller_is_killed),
    "bus-restarts": Scenario("nats-server is killed and started again", _few, fault=bus_restarts),
}  # fmt: skip
