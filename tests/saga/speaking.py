"""Agents that somebody else has taken over: what tests of senders share."""

from __future__ import annotations

import asyncio
from typing import Any

from sterna.rpc.client import RpcClient
from tests.saga.fleet import SimFleet

CASTS = ("rollback_live_migration_at_destination", "post_live_migration_at_destination")


def speaker(fleet: SimFleet, host: str) -> RpcClient:
    """The process of an agent that somebody else has taken over."""
    return RpcClient(fleet.broker.bus(f"taken {host}", host), host, fleet.clock)


def run(fleet: SimFleet, scenario: Any) -> None:
    async def inside() -> None:
        async with fleet:
            await scenario()

    asyncio.run(fleet.clock.run(inside()))
