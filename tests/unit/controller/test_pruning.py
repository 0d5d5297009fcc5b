"""When old records are removed, and by which clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sterna.controller.records.pruning import PAUSE_S, PRUNE_EVERY_S, Pruning, Retention
from sterna.domain.errors import Unreachable

from .fakes import HandClock

KEEP = Retention(migrations=90, operations=30, log=365)


class Records:
    """Implements ports.pruning.PruneRecords: so many of each are old."""

    def __init__(self, migrations: int = 0, operations: int = 0, lines: int = 0) -> None:
        self.left = {"migrations": migrations, "operations": operations, "log": lines}
        self.before: dict[str, str] = {}
        self.away = 0

    def _some(self, kind: str, before: str) -> int:
        if self.away:
            self.away -= 1
            raise Unreachable("the database is away")
        self.before[kind] = before
        some = min(self.left[kind], 2)
        self.left[kind] -= some
        return some

    async def prune_endpoints(self, before: str) -> int:
        self.before["endpoints"] = before
        return 0

    async def prune_migrations(self, before: str, spare: int) -> int:
        assert spare == 100
        return self._some("migrations", before)

    async def old_operations(self, before: str) -> list[str]:
        self.before["operations"] = before
        return [f"o{n}" for n in range(self.left["operations"])]

    async def prune_operation(self, id: str, before: str) -> bool:
        self.left["operations"] -= 1
        return True

    async def prune_log(self, before: str) -> int:
        return self._some("log", before)


async def test_all_that_is_old_enough_is_removed_a_few_at_a_time() -> None:
    records, clock = Records(5, 3, 4), HandClock()
    began, now = clock.ms, clock.now()
    await Pruning(records, clock, KEEP).prune()
    assert set(records.left.values()) == {0}
    assert clock.ms - began == pytest.approx((3 + 3 + 2) * PAUSE_S * 1000), "others have their turn in between"
    assert records.before["migrations"] == (now - timedelta(days=90)).isoformat()
    assert records.before["operations"][:10] == (now - timedelta(days=30)).isoformat()[:10]
    assert records.before["endpoints"] == (now - timedelta(days=1)).isoformat()
    assert records.before["log"][:10] == (now - timedelta(days=365)).isoformat()[:10]


async def test_what_is_kept_for_ever_is_not_looked_at() -> None:
    records = Records(5, 3, 4)
    await Pruning(records, HandClock(), Retention(operations=1)).prune()
    assert records.left == {"migrations": 5, "operations": 0, "log": 4} and set(records.before) == {
        "operations",
        "endpoints",
    }


@pytest.mark.parametrize("jump_days", [400, -400])
async def test_a_clock_that_is_set_removes_nothing_early(jump_days: int) -> None:
    records, clock = Records(), HandClock()
    now = clock.now()
    pruning = Pruning(records, clock, KEEP)
    clock.jump_s = jump_days * 86400.0
    await pruning.prune()
    assert records.before["migrations"] == (now + timedelta(days=min(jump_days, 0) - 90)).isoformat()


async def test_it_goes_on_when_the_database_was_away() -> None:
    records, clock = Records(5), HandClock()
    records.away = 2
    began = clock.ms
    task = asyncio.create_task(Pruning(records, clock, KEEP).run())
    async with asyncio.timeout(10):
        while records.left["migrations"]:  # noqa: ASYNC110 - its clock moves by itself
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.ms - began >= 3 * PRUNE_EVERY_S * 1000
