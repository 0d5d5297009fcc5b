"""Work on a destination hangs and holds its migration's lock: who else wants it waits for so long, not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.sim.ports.vif import SimVif
from tests.saga.fleet import SimFleet

P3_S, OTHERS_S = 600.0, 60.0
"""How long the source waits for P3, and for any other call about one migration."""


async def test_work_that_hangs_is_left_by_who_asked_and_undone_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P3's second half hangs. The source asks again, gives up, and rolls back; its word waits in its lane."""
    fleet, hung, goes_on = SimFleet(), asyncio.Event(), asyncio.Event()
    plug = SimVif.plug

    async def hangs(self: SimVif, *given: Any, **named: Any) -> None:
        if self._host.name == "host2":
            hung.set()
            await goes_on.wait()
        await plug(self, *given, **named)

    monkeypatch.setattr(SimVif, "plug", hangs)

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            await hung.wait()
            began_ms = fleet.clock.monotonic_ms()

            def history() -> History:
                return fleet.agents["host1"].history(fleet.migration)

            while history().status == Status.PREPARING:
                await fleet.clock.sleep(1.0)
            assert history().status == Status.ROLLING_BACK
            assert fleet.clock.monotonic_ms() - began_ms <= (2 * P3_S + OTHERS_S) * 1000
            assert fleet.world.running(vm) == ["host1"]
            goes_on.set()
            assert await fleet.ended() is Status.FAILED
            assert not fleet.world.violations
            assert fleet.world.running(vm) == ["host1"]

    await fleet.clock.run(scenario())
