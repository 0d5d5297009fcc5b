"""What can never be handled is shown by `sterna audit` until an operator clears it. It stops no migration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sterna.controller.controller import Controller
from sterna.domain.status import Status
from sterna.domain.trust.bounds import MOST_OF_A_HOST
from sterna.domain.trust.dead_letters import MOST_OF_ONE
from sterna.ports.records import Envelope
from sterna.rpc.client import RpcClient
from sterna.rpc.dead_letters import DeadLetters
from sterna.rpc.subjects import call_subject, cast_subject, event_subject
from sterna.sim.ports.bus import MemoryBus
from tests.saga.controlled import HoldingFleet, Play
from tests.saga.fleet import SimFleet

THREE = ("host1", "host2", "host3")


def taken(fleet: SimFleet, host: str) -> MemoryBus:
    """The place on the bus of a host that somebody else has taken over."""
    return fleet.broker.bus(f"taken {host}", host)


async def test_audit_shows_them_and_repair_forgets_them(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        assert (await controller.audits.audit()).clean
        host2 = taken(fleet, "host2")
        await host2.publish(call_subject("host1", "host2"), b"\xffnonsense")
        await fleet.clock.sleep(1)
        found = await controller.audits.audit()
        (one,) = found.leftovers
        assert (one.kind, one.host, one.subject) == ("bad-message", "host1", "host2") and not found.clean
        assert "sent by host2 at 2026-01-01T" in one.why and r"\xffnonsense" in one.why and "not JSON" in one.why
        cleared = await controller.audits.audit(repair=True)
        assert [f.done for f in cleared.leftovers] == ["done"] and cleared.clean
        found = await controller.audits.audit()
        assert found.leftovers == () and found.clean

    await play(scenario)


async def test_those_of_the_controller_as_well(tmp_path: Any) -> None:
    fleet = SimFleet()
    letters: DeadLetters = fleet.client.dead_letters
    controller = Controller(
        HoldingFleet(f"sqlite:///{tmp_path}/c.db", fleet.clock), fleet.client, fleet.clock, letters
    )

    async def inside() -> None:
        async with fleet:
            await controller.start()
            host2 = taken(fleet, "host2")
            await host2.publish(event_subject("host.host2"), b"no beacon")
            progress = json.dumps({"v": 1, "sender": "host2", "data": {"sample": {"iteration": "many"}}})
            await host2.publish(event_subject("progress.host2.m1"), progress.encode())
            await fleet.clock.sleep(1)
            found = await controller.audits.audit()
            seen = [(f.host, f.subject, f.why.split(": ")[1]) for f in found.leftovers if f.host == "@controller"]
            assert seen == [("@controller", "host2", "host.host2"), ("@controller", "host2", "progress.host2.m1")]
            assert not [f for f in (await controller.audits.audit("host1")).leftovers if f.host == "@controller"]
            assert (await controller.audits.audit(repair=True)).clean
            assert (await controller.audits.audit()).leftovers == ()
            await controller.stop()

    await fleet.clock.run(inside())


async def test_a_cast_that_no_open_migration_needs_can_be_cleared(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        async def broken(request: object) -> None:
            raise KeyError("a mistake in this version")

        there = fleet.agents["host2"]._agent
        assert there is not None
        there._server.cast("message_refused", broken)
        host1 = fleet.agents["host1"]._agent
        assert host1 is not None
        params = {"method": "x", "why": "y"}
        lost = Envelope(
            id="gone/R4", to="host2", method="message_refused", migration_id="gone", epoch=1, params=params
        )
        host1._outbox.put(lost)
        await fleet.clock.sleep(600)
        (one,) = (await controller.audits.audit("host2")).leftovers
        assert (one.kind, one.repair) == ("cast", "forget it") and "no open migration here needs it" in one.why
        assert (await controller.audits.audit("host2", repair=True)).clean
        assert fleet.agents["host2"].journal.inbox() == []
        assert (await controller.audits.audit("host2")).leftovers == ()

    await play(scenario)


async def test_a_host_that_floods_and_poisons_holds_up_no_migration_of_others() -> None:
    """host3 keeps every place that it has at both hosts, and sends what nobody can handle, while a VM moves."""
    async with SimFleet(THREE) as fleet, fleet.clock.auto():
        host3 = taken(fleet, "host3")
        flood = {"v": 1, "kind": "call", "sender": "host3", "method": "pre_live_migration", "migration_id": "x"}
        vm = fleet.vm()
        await fleet.start(vm)
        for n in range(3 * MOST_OF_A_HOST):
            for host in ("host1", "host2"):
                await host3.publish(call_subject(host, "host3"), json.dumps(flood | {"id": str(n)}).encode())
                await host3.publish(cast_subject(host, "host3"), b"[" * 1_000)
                await host3.publish(event_subject("host.host3"), b"\x00")
                await host3.publish(event_subject(f"leaving.host3.{fleet.migration}"), b"{}")
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"] and fleet.world.violations == []
        for host in ("host1", "host2"):
            agent = fleet.agents[host]._agent
            assert agent is not None
            letters = agent._client.dead_letters.kept
            assert {one.sender for one in letters} == {"host3"} and len(letters) <= MOST_OF_ONE
            assert fleet.agents[host].journal.inbox() == []


@pytest.mark.parametrize("claimed", ["host2", "host1"])
async def test_a_beacon_wakes_what_waits_for_its_own_host_only(claimed: str) -> None:
    """host3 says that host2 has another life: what host2 refused is not offered to it again."""
    async with SimFleet(THREE) as fleet, fleet.clock.auto():
        host1 = fleet.agents["host1"]._agent
        assert host1 is not None
        params = {"method": "x"}  # without `why`: host2 refuses it
        lost = Envelope(id="c/1", to="host2", method="message_refused", migration_id="c", epoch=1, params=params)
        host1._outbox.put(lost)
        await fleet.clock.sleep(5.5)
        assert list(host1._outbox.refused) == ["c/1"]
        boots = dict(host1._outbox._boots)
        liar = RpcClient(taken(fleet, "host3"), "host3", fleet.clock)
        await liar.announce("host.host3", {"host": {"name": claimed}, "boot": "a new life"})
        await fleet.clock.sleep(0.1)
        assert host1._outbox._boots.get("host2") == boots["host2"]
