"""A controller that has just started knows its hosts from before, and soon whether they are up."""

from __future__ import annotations

from pathlib import Path

from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from tests.saga.controlled import HoldingFleet
from tests.saga.fleet import SimFleet


def controller_of(fleet: SimFleet, path: Path) -> Controller:
    return Controller(HoldingFleet(f"sqlite:///{path}/c.db", fleet.clock), fleet.client, fleet.clock)


async def once_started(fleet: SimFleet, path: Path) -> Controller:
    """A second life of a controller that has heard all hosts."""
    first = controller_of(fleet, path)
    await first.start()
    await fleet.clock.sleep(2)
    await first.stop()
    second = controller_of(fleet, path)
    await second.start()
    return second


async def test_a_migration_is_taken_at_once_after_a_restart(tmp_path: Path) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            fleet.vm()
            controller = await once_started(fleet, tmp_path)
            record, _ = await controller.migrate(MigrateRequest(vm="tern", destination="host2"))
            fleet.migration = record.id
            assert (await fleet.ended()).value == "completed"
            await controller.stop()

    await fleet.clock.run(scenario())


async def test_a_host_that_is_down_holds_a_start_up_for_two_seconds_at_most(tmp_path: Path) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            first = await once_started(fleet, tmp_path)
            await first.stop()
            await fleet.agents["host2"].kill()
            began_ms, controller = fleet.clock.monotonic_ms(), controller_of(fleet, tmp_path)
            await controller.start()
            assert fleet.clock.monotonic_ms() - began_ms <= 2_000
            hosts = await controller.registry.hosts()
            assert [(h.name, h.up) for h in hosts] == [("host1", True), ("host2", False)]
            await controller.stop()

    await fleet.clock.run(scenario())
