"""A journal that takes a migration and cannot be read right afterwards: it is accepted, and driven later."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sterna.domain.errors import Temporary
from sterna.domain.journal import Entry, Migration, Role
from sterna.domain.status import Status
from tests.asking import to_start
from tests.saga.fleet import SimFleet
from tests.saga.losses import closed, declare, power_cut
from tests.saga.playing import run

MINUTE_S = 60.0
LOCKED = "another process has locked the journal"


def unreadable_once_accepted(fleet: SimFleet, error: Exception) -> Callable[[], None]:
    """host1's journal gives no entries from the moment of acceptance on; what ends that."""
    journal = fleet.agents["host1"].journal
    accept, entries, failing = journal.accept, journal.entries, [False]

    def accepting(migration: Migration, role: Role) -> Migration:
        accepted = accept(migration, role)
        failing[0] = True
        return accepted

    def reading(migration_id: str) -> list[Entry]:
        if failing[0]:
            raise error
        return entries(migration_id)

    journal.accept, journal.entries = accepting, reading  # type: ignore[method-assign]

    def mend() -> None:
        failing[0] = False
        journal.accept = accept  # type: ignore[method-assign]

    return mend


@pytest.mark.parametrize("error", [Temporary(LOCKED), ValueError("a bug")], ids=["locked", "bug"])
async def test_it_is_accepted_and_driven_once_the_journal_can_be_read(error: Exception) -> None:
    """An error would let the controller call it failed, and it would begin at the agent's next start."""

    async def scenario(fleet: SimFleet) -> None:
        mend, params = unreadable_once_accepted(fleet, error), to_start(vm := fleet.vm(), "host2")
        fleet.migration = str(params["id"])
        answer = await fleet.client.call("host1", "start_migration", params)
        assert not answer["repeated"]
        await fleet.clock.sleep(MINUTE_S)
        assert (await fleet.client.call("host1", "start_migration", params))["repeated"]
        mend()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


async def test_an_abort_is_not_accepted_by_one_that_nothing_drives() -> None:
    async def scenario(fleet: SimFleet) -> None:
        mend, params = unreadable_once_accepted(fleet, Temporary(LOCKED)), to_start(fleet.vm(), "host2")
        fleet.migration = str(params["id"])
        await fleet.client.call("host1", "start_migration", params)
        mend()  # it is read again a little later
        with pytest.raises(Temporary, match="nothing drives"):
            await fleet.abort()
        await fleet.clock.sleep(10)
        await fleet.abort()
        assert await fleet.ended() is Status.CANCELLED

    await run(scenario)


async def test_a_declaration_is_not_taken_for_one_that_nothing_drives() -> None:
    """The controller would count this host as notified."""

    async def scenario(fleet: SimFleet) -> None:
        mend, params = unreadable_once_accepted(fleet, Temporary(LOCKED)), to_start(fleet.vm(), "host2")
        fleet.migration = str(params["id"])
        await fleet.client.call("host1", "start_migration", params)
        mend()
        await power_cut(fleet, "host2")
        with pytest.raises(Temporary, match="nothing drives"):
            await declare(fleet, "host2", "host1")
        await fleet.clock.sleep(10)
        await declare(fleet, "host2", "host1")
        await closed(fleet, "host1")

    await run(scenario)


async def test_a_journal_that_cannot_be_read_at_the_start_keeps_no_agent_from_serving() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm, agent = fleet.vm(), fleet.agents["host1"]
        await fleet.start(vm)
        await agent.kill()
        entries = agent.journal.entries

        def locked(migration_id: str) -> list[Entry]:
            raise Temporary(LOCKED)

        agent.journal.entries = locked  # type: ignore[method-assign]
        await agent.start()
        await fleet.clock.sleep(MINUTE_S)
        agent.journal.entries = entries  # type: ignore[method-assign]
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)
