"""`journal_since`: who follows a journal asks for pages, and for nothing else."""

from __future__ import annotations

import pytest

from sterna.domain.errors import BadRequest
from sterna.domain.status import Status

from .fleet import SimFleet


@pytest.mark.parametrize("params", [{"limit": n} for n in (0, -1, -(2**63), 2**70, "5", 1.5, None, True)])
async def test_a_page_has_a_limit(params: dict[str, object]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(BadRequest, match="limit"):
            await fleet.client.call("host1", "journal_since", {"cursor": 0, **params})


@pytest.mark.parametrize("cursor", [-1, -(2**63), 2**63, 2**70, "0", 0.5, None, False])
async def test_and_begins_somewhere(cursor: object) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(BadRequest, match="cursor"):
            await fleet.client.call("host1", "journal_since", {"cursor": cursor})


async def test_a_cursor_beyond_the_end_lets_nothing_be_forgotten() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED
        agent = fleet.agents["host1"]._agent
        assert agent is not None
        answer = await fleet.client.call("host1", "journal_since", {"cursor": 2**63 - 1, "limit": 1})
        assert answer["entries"] == [] and agent._read_to == 0
        page = await fleet.client.call("host1", "journal_since", {"cursor": 3, "limit": 10**6})
        assert page["entries"][0]["seq"] == 4 and agent._read_to == 3
