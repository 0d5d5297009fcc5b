"""A destination that cannot handle F5 or R4 yet says why, in its journal: the source may be gone for good."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.entries.notes import Waiting
from sterna.domain.errors import Unreachable
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.saga.fleet import SimFleet
from tests.saga.losses import power_back, power_cut
from tests.saga.playing import run, when


def waits(fleet: SimFleet, host: str) -> list[tuple[str, str]]:
    """The row and the words of each note of that host about a wait."""
    entries = fleet.agents[host].journal.entries(fleet.migration)
    notes = ((entry.row, Waiting.of(entry)) for entry in entries)
    return [(row, note.why) for row, note in notes if note is not None]


async def said(fleet: SimFleet, row: str) -> str:
    """What host2 waits for in that row, once it says so."""
    until = fleet.clock.monotonic_ms() + 120_000
    while row not in dict(waits(fleet, "host2")):
        assert fleet.clock.monotonic_ms() < until, fleet.agents["host2"].journal.entries(fleet.migration)[-3:]
        await fleet.clock.sleep(0.5)
    return dict(waits(fleet, "host2"))[row]


async def test_a_guest_that_ended_there_while_its_source_died_is_not_held_in_silence() -> None:
    """Whether the source settled the migration is asked before anything is done, for as long as it takes."""

    async def scenario(fleet: SimFleet) -> None:
        source = fleet.agents["host1"]
        vm, sent = fleet.vm(), asyncio.Event()

        async def stop() -> None:
            sent.set()
            await asyncio.Event().wait()

        when(source, "cast-post-live-migration", lambda: fleet.world.shut_down_guest(vm))
        when(source, "remove-vm-at-source", stop)
        await fleet.start(vm)
        await sent.wait()
        await power_cut(fleet, "host1")
        why = await said(fleet, "F5")
        assert why.startswith("F5 is tried again: ") and "host1" in why
        await fleet.clock.sleep(600)
        assert len(waits(fleet, "host2")) < 5  # not with every try
        await power_back(fleet, "host1")
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


@pytest.mark.parametrize(("row", "fails"), [("F5", False), ("R4", True)])
async def test_a_libvirt_that_does_not_answer_is_named(
    row: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        usual, silent = SimHypervisor.observe, [True]

        async def observe(hypervisor: SimHypervisor, uuid: str) -> object:
            destination = fleet.agents["host2"]
            if hypervisor._host.name == "host2" and silent[0] and destination.journal.inbox():
                raise Unreachable("libvirtd on host2 does not answer")
            return await usual(hypervisor, uuid)

        monkeypatch.setattr(SimHypervisor, "observe", observe)
        if fails:
            fleet.agents["host1"].rules = [("copy", "before", "permanent")]
        await fleet.start(fleet.vm())
        assert await said(fleet, row) == f"{row} is tried again: libvirtd on host2 does not answer"
        silent[0] = False
        assert await fleet.ended() is (Status.FAILED if fails else Status.COMPLETED)

    await run(scenario)
