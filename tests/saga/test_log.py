"""What an agent logs of a migration: each change of status and each failed try, under the same names everywhere."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from structlog.testing import capture_logs

from sterna.domain.status import Status
from tests.saga.playing import run

from .fleet import SimFleet

Line = MutableMapping[str, Any]


def of(logs: list[Line], host: str, event: str) -> list[Line]:
    return [line for line in logs if line["event"] == event and line.get("host") == host]


async def test_a_migration_can_be_followed_by_its_id() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        with capture_logs() as logs:
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
        lines = [line for line in logs if line.get("migration") == fleet.migration]
        assert {line["vm"] for line in lines} == {"tern"}
        assert [line["status"] for line in of(lines, "host1", "status")] == [
            "queued",
            "preparing",
            "migrating",
            "post-migrating",
            "completed",
        ]
        assert {line["host"] for line in of(lines, "host2", "closed")} == {"host2"}

    await run(scenario)


async def test_a_failed_try_is_one_line_with_its_row_and_what_to_do() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.agents["host2"].rules.append(("connect-volumes", "before", "permanent"))
        with capture_logs() as logs:
            await fleet.start(vm)
            assert await fleet.ended() is Status.FAILED
        (failed,) = of(logs, "host2", "a step failed")
        assert (failed["row"], failed["step"], failed["again"]) == ("P9", "connect-volumes", False)
        assert "forced at connect-volumes" in failed["error"] and "fix" in failed
        (back,) = of(logs, "host1", "rolls back")
        assert back["migration"] == fleet.migration and "forced at connect-volumes" in back["error"]

    await run(scenario)


async def test_what_is_tried_again_and_again_is_one_line() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.agents["host1"].rules.append(("find-volumes-to-disconnect", "before", "permanent"))
        with capture_logs() as logs:
            await fleet.start(vm)
            await fleet.clock.sleep(120)
        (failed,) = of(logs, "host1", "a step failed")
        assert failed["again"] and failed["log_level"] == "warning"
        fleet.agents["host1"].rules.clear()
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)
