"""What tests of dead hosts wait for, and the guest whose copy takes long enough for it."""

from __future__ import annotations

from typing import Any

from tests.saga.fleet import SimFleet

BIG: dict[str, Any] = {"dirty_bytes_per_s": 0, "memory_bytes": 8 << 30}
"""Of a guest whose copy takes seconds."""


async def noted(fleet: SimFleet, host: str, name: str) -> None:
    """Wait until this host has journaled a note of that name."""
    while name not in fleet.agents[host].history(fleet.migration).notes:
        await fleet.clock.sleep(0.02)
