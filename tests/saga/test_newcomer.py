"""A VM that came to its host by other means than Sterna, and whose definition says nothing of its past."""

from __future__ import annotations

from typing import Any

from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.status import Status
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


async def test_its_next_epoch_is_newer_than_what_the_destination_has_seen() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        journal = fleet.agents["host2"].journal
        told: dict[str, Any] = {"vm_uuid": vm, "vm_name": "tern", "source": "host9", "destination": "host2"}
        journal.accept(Migration(id="long-ago", epoch=5, **told), Role.DESTINATION)
        journal.append("long-ago", Kind.CLOSED)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert journal.newest_epoch(vm) == 6
        assert journal.newest_epoch("another") == 0

    await run(scenario)
