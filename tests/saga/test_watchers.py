"""What stands beside a copy goes on whatever goes wrong in it, and says what it waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from sterna.adapters.sim.hypervisor import SimHypervisor
from sterna.adapters.sim.network import SimNetwork
from sterna.domain.errors import Permanent
from sterna.domain.status import Status
from sterna.migration import transfer
from sterna.migration.context import PORTS_SWITCHED
from tests.saga.fleet import SimFleet
from tests.saga.test_migration import run
from tests.saga.test_postcopy import PERMITTED, status

NO_THREAD = "can't start new thread"


@contextlib.contextmanager
def raising(where: Any, name: str, *errors: Exception) -> Iterator[list[Exception]]:
    """The next calls raise these, one each; what is left of them."""
    left, real = list(errors), getattr(where, name)

    async def call(*args: Any) -> Any:
        if left:
            raise left.pop(0)
        return await real(*args)

    with patch.object(where, name, call):
        yield left


async def copying(fleet: SimFleet) -> None:
    """A copy that never ends by itself, under way."""
    await fleet.start(fleet.vm(), asked=PERMITTED)
    await status(fleet, Status.MIGRATING)
    await fleet.clock.sleep(5)


def reasons(fleet: SimFleet, note: str) -> list[str]:
    return [e.data["why"] for e in fleet.agents["host1"].journal.entries(fleet.migration) if e.name == note]


async def test_an_abort_is_asked_for_again_after_any_error():
    async def scenario(fleet):
        await copying(fleet)
        with raising(SimHypervisor, "abort", RuntimeError(NO_THREAD)):
            await fleet.abort()
            assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


async def test_what_libvirt_says_against_an_abort_is_journaled_when_its_words_change():
    async def scenario(fleet):
        await copying(fleet)
        refusals = [*[Permanent("the job cannot be ended")] * 5, *[Permanent("nor now")] * 5]
        with raising(SimHypervisor, "abort", *refusals):
            await fleet.abort()
            assert await fleet.ended(limit_s=60) is Status.CANCELLED
        said = reasons(fleet, "waiting-abort")
        assert [why.rpartition(": ")[2] for why in said] == ["the job cannot be ended", "nor now"]

    await run(scenario)


async def test_the_copy_is_looked_at_again_after_any_error():
    """Only a look ends the copy of a rehearsal."""

    async def scenario(fleet):
        with raising(SimHypervisor, "sample", RuntimeError(NO_THREAD)) as left:
            await fleet.start(fleet.vm(), rehearse="copy")
            assert await fleet.ended(limit_s=60) is Status.CANCELLED
        assert not left

    await run(scenario)


async def test_events_are_listened_to_again_after_any_error():
    async def scenario(fleet):
        with raising(transfer, "_note_events", RuntimeError(NO_THREAD), RuntimeError(NO_THREAD)) as left:
            await copying(fleet)
        assert not left
        assert "iteration" in fleet.agents["host1"].history(fleet.migration).notes
        await fleet.abort()
        assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


async def test_why_a_guest_is_not_switched_to_post_copy_is_journaled_once():
    async def scenario(fleet):
        await copying(fleet)
        refusals = [Permanent("the disks come first")] * 5
        with raising(SimHypervisor, "switch_to_postcopy", *refusals, RuntimeError(NO_THREAD)):
            await fleet.client.call("host1", "switch_to_postcopy", {"id": fleet.migration})
            assert await fleet.ended() is Status.COMPLETED
        said = reasons(fleet, "waiting-postcopy")
        assert [why.rpartition(": ")[2] for why in said] == ["the disks come first", NO_THREAD]

    await run(scenario)


async def test_the_network_service_is_told_again_after_any_error():
    """Here, not only by F7: the guest is reached as soon as that."""

    async def scenario(fleet):
        with raising(SimNetwork, "switch", RuntimeError(NO_THREAD)) as left:
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
        assert not left
        entries = fleet.agents["host1"].journal.entries(fleet.migration)
        names = [e.name for e in entries]
        assert names.index(PORTS_SWITCHED) < names.index("copy-succeeded")

    await run(scenario)
