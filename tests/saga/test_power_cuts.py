"""Either host loses power around every step of a migration, is declared dead, and comes back after all.

Generated from the flows. Whatever the moment: the survivor ends its half and starts nothing, there are never two
copies, Sterna starts or ends nothing when the dead host returns, nothing stays open, and no disk is gone.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.sim.libvirt import guests
from tests.saga.fleet import SimFleet
from tests.saga.losses import declare, power_cut
from tests.saga.playing import run, when
from tests.saga.steps import backward, forward

EVERY = 1 if os.environ.get("STERNA_MATRIX") else 8
"""`make matrix` plays all of them, `make check` every eighth."""
HOSTS = ("host1", "host2")
OTHER = {"host1": "host2", "host2": "host1"}


def cut_at(fleet: SimFleet, place: tuple[str, str, str], victim: str) -> asyncio.Event:
    """The victim loses power when that host reaches that moment of that step; set when it has."""
    host, step, moment = place
    reached, gone = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        reached.set()
        if victim == host:
            await asyncio.Event().wait()
        await gone.wait()

    async def cut() -> None:
        await reached.wait()
        await power_cut(fleet, victim)
        gone.set()

    when(fleet.agents[host], step, stop, moment)
    fleet.world.spawn(cut())
    return gone


async def ended_on(fleet: SimFleet, host: str, limit_s: float = 900) -> None:
    agent, until = fleet.agents[host], fleet.clock.monotonic_ms() + limit_s * 1000
    while open_ones := agent.journal.open():
        assert fleet.clock.monotonic_ms() < until, agent.journal.entries(open_ones[0][0].id)[-5:]
        await fleet.clock.sleep(1)


async def play_one(place: tuple[str, str, str], victim: str, *, back: bool) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        survivor = OTHER[victim]
        gone = cut_at(fleet, place, victim)
        if back:
            fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        starting = asyncio.ensure_future(fleet.start(vm))
        while not gone.is_set():
            await fleet.clock.sleep(0.2)
        await fleet.clock.sleep(100)
        starting.cancel()  # who asked may never have got an answer
        running = fleet.world.running(vm)
        await declare(fleet, victim, survivor)
        await ended_on(fleet, survivor)
        assert fleet.world.running(vm) == running
        history = fleet.agents[survivor].history(fleet.migration)
        if history.status is not None:
            assert Status(history.status).final
        guests.power_on(fleet.world, victim)
        running = fleet.world.running(vm)  # libvirt's autostart may have started what had not left this host
        await fleet.agents[victim].start()
        await ended_on(fleet, victim)
        now = fleet.world.running(vm)
        went_on = victim == "host1" and running == ["host1"] and now == ["host2"]
        if went_on:  # the destination had never heard of it, and nobody had told it to refuse it
            assert fleet.agents["host1"].history(fleet.migration).status == Status.COMPLETED
        assert now == running or went_on, "Sterna started or ended it when its host came back"
        await fleet.clock.sleep(30)
        check_nothing_runs_away(fleet, vm, now)
        assert fleet.agents["host1"].journal.outbox() == fleet.agents["host2"].journal.outbox() == []

    await run(scenario)


def check_nothing_runs_away(fleet: SimFleet, vm: str, running: list[str]) -> None:
    """An off guest starts nowhere by itself where the other host may have it; a running one keeps what it needs."""
    domains = {h: d for h in HOSTS if (d := fleet.world.hosts[h].domains.get(vm)) is not None}
    assert domains, "the VM is lost"
    assert sum(d.autostart for d in domains.values()) <= 1, "two hosts would start it when they boot"
    assert not any(d.autostart for h, d in domains.items() if running and h not in running)
    for host, domain in domains.items():
        if domain.state is GuestState.SHUTOFF and host not in running:
            files = [d.path for d in domain.definition.disks if d.path]
            if not running:
                assert all(fleet.world.hosts[host].file(path) for path in files), f"a disk is gone on {host}"


@pytest.mark.parametrize("victim", HOSTS)
@pytest.mark.parametrize("place", forward()[::EVERY], ids=str)
async def test_power_is_cut_on_the_way_forward(place: tuple[str, str, str], victim: str) -> None:
    await play_one(place, victim, back=False)


@pytest.mark.parametrize("victim", HOSTS)
@pytest.mark.parametrize("place", backward()[::EVERY], ids=str)
async def test_power_is_cut_on_the_way_back(place: tuple[str, str, str], victim: str) -> None:
    await play_one(place, victim, back=True)
