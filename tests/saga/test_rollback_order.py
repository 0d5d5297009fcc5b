"""A rollback does what docs/reference/rollback-order.md says, in that order, wherever it starts."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.errors import Permanent, SternaError, Temporary
from sterna.domain.journal import Kind
from sterna.domain.model import Disk
from sterna.domain.status import Status
from sterna.migration import flow, rollback_order
from sterna.migration.source.rollback import R3_PATIENCE_S
from sterna.sim.ports.volumes import SimIscsiVolumes
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


def compensation(fleet: SimFleet, host: str) -> list[str]:
    """The steps that a host has finished since its migration turned back."""
    entries = list(fleet.agents[host].journal.entries(fleet.migration))
    turned = next((e.seq for e in entries if e.kind is Kind.COMPENSATING), 1 << 62)
    return [e.name for e in entries if e.kind is Kind.DONE and e.seq > turned]


@pytest.mark.parametrize("failed", flow.SOURCE.until_pivot, ids=lambda step: step.name)
async def test_the_source_undoes_what_had_begun(failed: rollback_order.AnyStep) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        fleet.agents["host1"].rules.append((failed.name, "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert compensation(fleet, "host1") == [step.name for step in rollback_order.at_source(failed)]

    await run(scenario)


@pytest.mark.parametrize("failed", flow.DESTINATION.until_pivot, ids=lambda step: step.name)
async def test_the_destination_undoes_what_had_begun(failed: rollback_order.AnyStep) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        fleet.agents["host2"].rules.append((failed.name, "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert compensation(fleet, "host2") == [step.name for step in rollback_order.at_destination(failed)]

    await run(scenario)


@pytest.mark.parametrize("failed", flow.DESTINATION.until_pivot, ids=lambda step: step.name)
async def test_the_destination_undoes_the_same_where_r3_does_not_reach_it(
    failed: rollback_order.AnyStep,
) -> None:
    """The source asks for a while, then leaves it to R4's cast, which waits until the destination is back."""

    async def scenario(fleet: SimFleet) -> None:
        def away() -> None:
            fleet.broker.cut("host2-1")  # its first life hears nothing from now on
            fleet.dying.append(fleet.agents["host2"])
            fleet.death.set()

        vm = fleet.vm(autostart=True)
        fleet.agents["host2"].rules.append((failed.name, "before", "permanent"))
        fleet.agents["host1"].rules.append(("remove-volume-connection", "before", away))
        fleet.down_s = R3_PATIENCE_S + 5
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        expected = [step.name for step in rollback_order.at_destination(failed, called=False)]
        assert compensation(fleet, "host2") == expected

    await run(scenario)


@pytest.mark.parametrize("error", [Permanent("forbidden (HTTP 403)"), Temporary("tgtadm: no answer within 5 s")])
async def test_what_the_destinations_volumes_answer_keeps_no_vm_locked(
    error: SternaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3 is left to R4's cast, as where the destination is away; that one says what it waits for."""

    async def scenario(fleet: SimFleet) -> None:
        async def detach(self: SimIscsiVolumes, disk: Disk) -> None:
            if fails:
                raise error
            await real(self, disk)

        real, fails = SimIscsiVolumes.detach, True
        monkeypatch.setattr(SimIscsiVolumes, "detach", detach)
        vm = fleet.vm()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        async with asyncio.timeout(300):
            while fleet.agents["host1"].journal.holder(vm) is not None:
                await fleet.clock.sleep(0.5)
        fails = False
        assert await fleet.ended() is Status.FAILED
        failed = [e for e in fleet.agents["host2"].journal.entries(fleet.migration) if e.kind is Kind.FAILED]
        assert len(failed) < 10

    await run(scenario)
