"""A host that is declared dead and is not, or is heard again."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from sterna.agent.destination import IncomingMigrations
from sterna.agent.fencing import Fencing
from sterna.domain.entries.notes import PeerDeclared, WrittenOffByPeer
from sterna.domain.errors import Refused
from sterna.domain.model import Data
from sterna.domain.status import Status
from tests.saga.fleet import SimFleet
from tests.saga.losses import declare
from tests.saga.playing import raising, run
from tests.saga.survivors import BIG, noted


async def test_a_host_whose_agent_answers_is_not_dead() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(**BIG)
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        for dead, to in (("host1", "host2"), ("host2", "host1")):
            with pytest.raises(Refused, match="answers") as refused:
                await declare(fleet, dead, to)
            assert refused.value.refusals[0].fix
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_an_agent_whose_libvirt_is_down_is_alive() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(**BIG)
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        fleet.world.hosts["host1"].libvirtd_up = False
        with pytest.raises(Refused, match="answers"):
            await declare(fleet, "host1", "host2")
        fleet.world.hosts["host1"].libvirtd_up = True
        assert await fleet.ended() is Status.FAILED

    await run(scenario)


async def test_the_host_is_heard_again_before_anything_was_done() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(**BIG)
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        await fleet.agents["host1"].kill()  # the agent only: the guest runs on, the copy too
        fleet.world.hosts["host2"].libvirtd_up = False
        await declare(fleet, "host1", "host2")
        await fleet.clock.sleep(10)
        await fleet.agents["host1"].start()
        await fleet.clock.sleep(10)
        assert fleet.agents["host2"].history(fleet.migration).notes[PeerDeclared.entry]["dead"] is False
        fleet.world.hosts["host2"].libvirtd_up = True
        assert await fleet.ended() is Status.FAILED  # the copy did not survive libvirtd
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)


@pytest.mark.parametrize("error", [None, RuntimeError("can't start new thread"), asyncio.CancelledError()])
async def test_the_host_is_heard_again_also_where_that_could_not_be_journaled_or_asked(
    error: BaseException | None,
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        source, survivor = fleet.agents["host1"], fleet.agents["host2"]
        await fleet.start(fleet.vm(**BIG))
        await noted(fleet, "host1", "copy-started")
        await source.kill()
        fleet.world.hosts["host2"].libvirtd_up = False
        await declare(fleet, "host1", "host2")
        await fleet.clock.sleep(3)
        with raising(Fencing, "_answers", *([] if error is None else [error])) as left:
            survivor.disk_full(error is None)
            await source.start()
            await fleet.clock.sleep(10)
            survivor.disk_full(False)
            await fleet.clock.sleep(5)
        assert not left
        assert survivor.history(fleet.migration).notes[PeerDeclared.entry]["dead"] is False
        fleet.world.hosts["host2"].libvirtd_up = True
        assert await fleet.ended() is Status.FAILED  # the copy did not survive libvirtd

    await run(scenario)


async def test_a_host_that_answers_with_an_error_only_is_alive() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm(**BIG))
        await noted(fleet, "host1", "copy-started")
        await fleet.agents["host2"].kill()
        fleet.world.hosts["host1"].libvirtd_up = False  # nothing can be settled yet
        await declare(fleet, "host2", "host1")
        with patch.object(IncomingMigrations, "observe_guest", cannot_say):
            await fleet.agents["host2"].start()
            await fleet.clock.sleep(30)
        assert fleet.agents["host1"].history(fleet.migration).notes[PeerDeclared.entry]["dead"] is False
        fleet.world.hosts["host1"].libvirtd_up = True
        assert await fleet.ended() is Status.FAILED  # the copy did not survive libvirtd

    await run(scenario)


async def cannot_say(*_: object) -> Data:
    raise RuntimeError("can't start new thread")


async def test_the_word_is_taken_back() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(**BIG)
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        await fleet.agents["host1"].kill()
        fleet.world.hosts["host2"].libvirtd_up = False
        await declare(fleet, "host1", "host2")
        await declare(fleet, "host1", "host2")  # again is nothing
        answer = await fleet.client.call("host2", "declare_alive", {"host": "host1", "at": "now"})
        assert answer["migrations"] == [fleet.migration]
        fleet.world.hosts["host2"].libvirtd_up = True
        await fleet.clock.sleep(60)
        assert not fleet.agents["host2"].history(fleet.migration).closed
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.FAILED
        assert WrittenOffByPeer.entry not in fleet.agents["host1"].history(fleet.migration).notes

    await run(scenario)
