"""A thousand requests for one VM at once, through the real API over real agents on simulated hosts."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx2

from sterna.controller.controller import Controller
from sterna.domain.status import Status
from tests.saga.controlled import Play
from tests.saga.fleet import SimFleet
from tests.unit.api.clients import client, served

CROWD = 1_000


async def test_a_thousand_at_once_make_one_migration_and_999_conflicts(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        asked = 0
        check = fleet.agents["host1"]._agent.source._checks.check  # type: ignore[union-attr]

        async def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return await check(*args)

        fleet.agents["host1"]._agent.source._checks.check = counted  # type: ignore[union-attr,method-assign]
        async with client(served(controller), raises=False) as http:

            async def ask(number: int) -> httpx2.Response:
                name = vm if number % 2 else "tern"  # some by UUID, some by name
                body = {"vm": name, "destination": "host2", "id": str(uuid.uuid4())}
                return await http.post("/v1/migrations", json=body)

            answers = await asyncio.gather(*(ask(n) for n in range(CROWD)))
        by_status = {s: [a for a in answers if a.status_code == s] for s in {a.status_code for a in answers}}
        assert {s: len(found) for s, found in by_status.items()} == {202: 1, 409: CROWD - 1}
        winner = by_status[202][0].json()["id"]
        for conflict in by_status[409]:
            (reason,) = conflict.json()["reasons"]
            assert reason["code"] == "migration-under-way" and winner in reason["message"] and reason["fix"]
        assert asked <= 4  # the agents are not asked a thousand times
        fleet.migration = winner
        assert await fleet.ended() is Status.COMPLETED
        accepted = [m for m, _ in fleet.agents["host1"].journal.open()]
        assert accepted == []
        assert len({e.migration_id for e in fleet.agents["host1"].journal.since(0, 10_000)}) == 1

    await play(scenario)
