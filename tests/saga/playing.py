"""Migrations played on simulated hosts: begin one, wait for a status, act at a step, raise errors in a port."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self
from unittest.mock import patch

from sterna.domain.objective import Asked
from sterna.domain.policies import May
from sterna.domain.status import Status
from sterna.sim.world.things import MIB
from tests.saga.fleet import SimAgent, SimFleet

SLOW = 16 * MIB
"""bytes/s: 512 MiB take half a minute, and 80 MiB/s of writes never converge."""
SLOW_S = 50.0
"""How long a call of `Slow` takes."""
PERMITTED = Asked(may=frozenset({May.POSTCOPY}), bandwidth_bytes_s=SLOW)


async def run(
    scenario: Callable[[SimFleet], Awaitable[None]], fleet: SimFleet | None = None, *, violations: int = 0
) -> SimFleet:
    """`violations`: of the invariants, that the scenario itself makes."""
    fleet = fleet or SimFleet()

    async def inside() -> None:
        async with fleet:
            await scenario(fleet)
            assert len(fleet.world.violations) == violations, fleet.world.violations

    await fleet.clock.run(inside())
    return fleet


async def begin(fleet: SimFleet, vm: str, asked: Asked | None = None) -> None:
    """Start a migration; return once it is copying."""
    await fleet.start(vm, asked=asked)
    while fleet.agents["host1"].history(fleet.migration).status != Status.MIGRATING:
        await fleet.clock.sleep(0.1)


def when(agent: SimAgent, step: str, act: Callable[[], object], moment: str = "before") -> None:
    """Do that right before or after this step of the agent acts, once. The step waits for what is asynchronous."""
    agent.rules.append((step, moment, act))


def one(fleet: SimFleet) -> str:
    """The fleet's only VM."""
    return next(iter(fleet.world.guests))


async def in_postcopy(fleet: SimFleet, **more: Any) -> str:
    """A guest that runs on host2 while host1 still holds most of its memory; its UUID."""
    vm = fleet.vm(**more)
    await fleet.start(vm, asked=PERMITTED)
    await fleet.client.call("host1", "switch_to_postcopy", {"id": fleet.migration})
    await status(fleet, Status.POST_COPY)
    assert fleet.world.running(vm) == ["host2"]
    return vm


async def status(fleet: SimFleet, wanted: Status, limit_s: float = 120.0) -> None:
    """Wait, in virtual time, until the source's journal says so."""
    until = fleet.clock.monotonic_ms() + limit_s * 1000
    while fleet.agents["host1"].history(fleet.migration).status != wanted:
        assert fleet.clock.monotonic_ms() < until, fleet.agents["host1"].journal.entries(fleet.migration)[-3:]
        await fleet.clock.sleep(0.1)


@contextlib.contextmanager
def raising(where: Any, name: str, *errors: BaseException) -> Iterator[list[BaseException]]:
    """The next calls raise these, one each; what is left of them."""
    left, real = list(errors), getattr(where, name)

    async def call(*args: Any, **more: Any) -> Any:
        if left:
            raise left.pop(0)
        return await real(*args, **more)

    with patch.object(where, name, call):
        yield left


class Slow:
    """Inside, each call of one method of a simulated port takes SLOW_S, on that host or on all."""

    def __init__(self, fleet: SimFleet, port: type, name: str, *, host: str = "") -> None:
        self._fleet, self._host, self._real = fleet, host, getattr(port, name)
        self.quick = False
        """Is it as usual?"""
        self.began_ms = list[float]()
        """When the slow calls were made."""
        self.ended = 0
        """How many of them came to their end."""

        async def call(of: Any, *args: Any, **more: Any) -> Any:
            return await self._call(of, *args, **more)

        self._patch = patch.object(port, name, call)

    async def _call(self, of: Any, *args: Any, **more: Any) -> Any:
        is_slow = not self.quick and self._host in ("", getattr(of, "_host", None) and of._host.name)
        if is_slow:
            self.began_ms.append(self._fleet.clock.monotonic_ms())
        found = await self._real(of, *args, **more)
        if is_slow:
            await self._fleet.clock.sleep(SLOW_S)
            self.ended += 1
        return found

    def from_step(self, agent: SimAgent, step: str) -> None:
        """As usual until then: the checks have asked the same."""
        self.quick = True
        when(agent, step, lambda: setattr(self, "quick", False))

    def __enter__(self) -> Self:
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()
