"""Wall clocks that jump, and agents that have lived long: durations are monotonic, and the past stays small."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from sterna.agent.housekeeping import PRUNE_EVERY_S, Housekeeping
from sterna.controller.controller import Controller
from sterna.domain.status import Status
from sterna.ports import records
from tests.saga.controlled import Play, read, started
from tests.saga.fleet import SimFleet
from tests.saga.playing import run, when

HOURS = 3600.0
STEPS = ("snapshot-volumes", "pre-live-migration", "copy", "detach-volumes")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("jump_s", [-12 * HOURS, 12 * HOURS, 40 * 24 * HOURS])
async def test_a_hosts_wall_clock_jumps_in_the_middle(play: Play, step: str, jump_s: int) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        empty = fleet.own("host1").domains.keys() - {vm}
        source, destination = fleet.agents["host1"], fleet.agents["host2"]

        def jump() -> None:
            source.clock.wrong_by_s += jump_s
            destination.clock.wrong_by_s -= jump_s

        when(source, step, jump)
        record = await started(fleet, controller)
        assert await fleet.ended() is Status.COMPLETED
        assert source.clock.wrong_by_s == jump_s
        record = await read(controller, record.id)
        report = await controller.report(record)
        assert report.total_ms is not None and 0 < report.total_ms < 60_000
        assert all(p.duration_ms is not None and p.duration_ms >= 0 for p in report.phases)
        durations = [i.duration_ms for i in await controller.timeline(record.id) if i.duration_ms is not None]
        assert durations and min(durations) >= 0
        assert (await controller.audits.audit()).clean
        assert fleet.own("host1").domains.keys() == empty

    await play(scenario)


async def test_a_rollback_whose_destination_is_away_waits_by_the_monotonic_clock() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        before = fleet.snapshots()
        source = fleet.agents["host1"]
        source.rules.append(("copy", "before", "permanent"))
        fleet.agents["host2"].rules.append(("disconnect-volumes-here", "before", "kill"))
        fleet.down_s = 200
        await fleet.start(vm)
        for jump in itertools.cycle((5 * HOURS, -9 * HOURS)):
            if source.history(fleet.migration).released:
                break
            source.clock.wrong_by_s += jump
            await fleet.clock.sleep(1)
        assert 5_000 < fleet.clock.monotonic_ms() < 60_000
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() == before

    await run(scenario)


async def test_the_journals_of_a_long_life_stay_small(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Housekeeping, "prune", small(3))

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        ids = []
        for n in range(12):
            source, to = ("host1", "host2") if n % 2 == 0 else ("host2", "host1")
            await started(fleet, controller, to=to)
            ids.append(fleet.migration)
            assert await fleet.ended(source) is Status.COMPLETED
            await read(controller, fleet.migration)
            await read(controller, fleet.migration)  # the second look says that the first was taken
            await fleet.clock.sleep(PRUNE_EVERY_S + 10)
            for agent in fleet.agents.values():
                known = {e.migration_id for e in agent.journal.since(0, 10_000)}
                assert len(known) <= 4, n
        for id in ids:  # the controller has all of them
            assert (await controller.fleet.migration(id)).status is Status.COMPLETED
            assert len(await controller.timeline(id)) > 20
        assert fleet.world.running(vm) == ["host1"]
        # a repeat of a cast about a migration that is forgotten does nothing
        first = (await controller.fleet.migration(ids[0])).migration
        for cast in ("post_live_migration_at_destination", "rollback_live_migration_at_destination"):
            envelope = records.Envelope(
                id=f"{first.id}/again-{cast}", to="host2", sender="host1", method=cast, migration_id=first.id,
                epoch=first.epoch, params={"migration": first.model_dump(mode="json")},
            )  # fmt: skip
            fleet.agents["host1"]._agent._outbox.put(envelope)  # type: ignore[union-attr]
        before = fleet.snapshots()
        await fleet.clock.sleep(30)
        assert fleet.snapshots() == before
        assert fleet.agents["host2"].journal.inbox() == [] and fleet.agents["host1"].journal.outbox() == []
        assert fleet.agents["host2"].journal.get(first.id) is None

    await play(scenario)


def small(migrations: int) -> Callable[[Housekeeping], int]:
    """The real thing, with less to keep."""

    def prune(self: Housekeeping) -> int:
        keep = records.Keep(migrations=migrations, casts=4)
        return self._journal.prune(self._read_to(), spare="wrote-off-peer", keep=keep)

    return prune
