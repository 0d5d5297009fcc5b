"""An agent does what it is asked by those whose word it is, and nothing that another enrolled host asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.journal import EPOCH_LEAP
from sterna.domain.status import Status
from sterna.domain.trust.callers import CALLERS, Caller
from sterna.ports.records import Envelope
from tests.saga.fleet import SimFleet
from tests.saga.speaking import CASTS, run, speaker

THREE = ("host1", "host2", "host3")


async def under_way(fleet: SimFleet) -> dict[str, Any]:
    """A copy runs from host1 to host2; what every message about it carries."""
    await fleet.start(fleet.vm(dirty_bytes_per_s=2**30))
    async with asyncio.timeout(60):
        while fleet.agents["host1"].history(fleet.migration).status != Status.MIGRATING:
            await fleet.clock.sleep(0.1)
    known = fleet.agents["host2"].journal.get(fleet.migration)
    assert known is not None
    return {"migration_id": fleet.migration, "epoch": known[0].epoch}


def of(caller: Caller, *casts: str) -> list[str]:
    return [m for m, c in CALLERS.items() if c is caller and m not in casts]


@pytest.mark.parametrize("method", of(Caller.CONTROLLER))
def test_a_host_asks_for_nothing_that_is_a_controllers(method: str) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        with pytest.raises(BadRequest, match="only a controller may"):
            await speaker(fleet, "host2").call("host1", method, {})

    run(fleet, scenario)


@pytest.mark.parametrize("method", of(Caller.SOURCE, *CASTS))
def test_a_third_host_has_no_say_in_a_migration(method: str) -> None:
    fleet = SimFleet(THREE)

    async def scenario() -> None:
        words = await under_way(fleet)
        before = fleet.agents["host2"].journal.entries(fleet.migration)
        migration = fleet.agents["host2"].journal.get(fleet.migration)
        assert migration is not None
        forged = {"migration": migration[0].model_copy(update={"source": "host3"}).model_dump(mode="json")}
        for params in ({}, forged):
            with pytest.raises(BadRequest, match="only the migration's source may"):
                await speaker(fleet, "host3").call("host2", method, params, **words)
        assert fleet.agents["host2"].journal.entries(fleet.migration) == before

    run(fleet, scenario)


@pytest.mark.parametrize("method", [*CASTS, "destination_report", "message_refused"])
def test_nor_by_a_cast(method: str) -> None:
    fleet = SimFleet(THREE)

    async def scenario() -> None:
        words = await under_way(fleet)
        to = "host1" if method == "destination_report" else "host2"
        known = fleet.agents["host2"].journal.get(fleet.migration)
        assert known is not None
        third = fleet.agents["host3"]
        assert third._agent is not None
        refused: list[str] = []
        third._agent._outbox.on_refused = lambda envelope, why: refused.append(why)
        params = {"migration": known[0].model_dump(mode="json"), "row": "R7", "method": "x", "why": "y"}
        third._agent._outbox.put(Envelope(id="forged", to=to, method=method, params=params, **words))
        await fleet.clock.sleep(1)
        assert 1 <= len(refused) <= 2  # once more in the first life of the receiver that was heard of
        assert all("host3 asks for" in why for why in refused)
        assert fleet.agents[to].journal.inbox() == []

    run(fleet, scenario)


def test_every_method_of_an_agent_is_in_the_table() -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        agent = fleet.agents["host1"]._agent
        assert agent is not None
        assert {*agent._server._methods, *agent._server._casts} == set(CALLERS)

    run(fleet, scenario)


class Probe:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def expect(self, needed: int = 1, promise_to: str = "") -> int:
        self.asked.append(promise_to)
        return 49152

    async def knock(self, address: str, port: int) -> None:
        return None


def test_ports_are_promised_to_a_migrations_own_source_and_tried_so_often_by_others() -> None:
    """Whoever had all of them would keep every migration from this host."""
    fleet, probe = SimFleet(THREE), Probe()
    fleet.agents["host2"].settings["probe"] = probe

    async def scenario() -> None:
        words = await under_way(fleet)
        host1, host3 = speaker(fleet, "host1"), speaker(fleet, "host3")
        probe.asked.clear()
        for id in (words["migration_id"], "made up"):
            await host3.call("host2", "expect_stream", {"begins": True}, migration_id=id)
        assert probe.asked == ["", ""]
        ports = [(await host3.call("host2", "expect_stream", {}))["port"] for _ in range(100)]
        assert 0 < sum(port > 0 for port in ports) < 20
        assert (await host1.call("host2", "expect_stream", {"begins": True}, **words))["port"] == 49152
        assert probe.asked[-1] == fleet.migration

    run(fleet, scenario)


def test_a_refused_p3_leaves_nothing_in_memory() -> None:
    fleet = SimFleet(THREE)

    async def scenario() -> None:
        await under_way(fleet)
        known = fleet.agents["host2"].journal.get(fleet.migration)
        assert known is not None
        vm = {"uuid": known[0].vm_uuid, "name": "x", "state": "running", "memory_bytes": 1, "vcpus": 1}
        host3 = speaker(fleet, "host3")
        for n in range(50):
            other = known[0].model_copy(update={"id": f"other-{n}", "source": "host3", "epoch": 2})
            words: dict[str, Any] = {"migration_id": other.id, "epoch": other.epoch}
            params = {"migration": other.model_dump(mode="json"), "vm": vm}
            with pytest.raises(Conflict, match="already migrating"):
                await host3.call("host2", "pre_live_migration", params, **words)
        agent = fleet.agents["host2"]._agent
        assert agent is not None
        assert set(agent._halves._locks) <= {fleet.migration}
        assert [c.migration.id for c in agent._halves.open_contexts] == [fleet.migration]

    run(fleet, scenario)


@pytest.mark.parametrize("by", ["pre_live_migration", "rollback_live_migration_at_destination"])
def test_a_host_that_claims_a_vm_which_runs_elsewhere_locks_it_nowhere(by: str) -> None:
    """Each claim with a higher epoch: in the end no other host would believe the VM's own."""
    fleet = SimFleet(THREE)

    async def scenario() -> None:
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        known = fleet.agents["host2"].journal.get(fleet.migration)
        third = fleet.agents["host3"]._agent
        assert known is not None and third is not None
        told = {"uuid": vm, "name": "tern", "state": "running", "memory_bytes": 1, "vcpus": 1}
        for n in range(1, 4):
            epoch = n * EPOCH_LEAP
            claim = known[0].model_copy(update={"id": f"claim-{n}", "source": "host3", "epoch": epoch})
            words: dict[str, Any] = {"migration_id": claim.id, "epoch": epoch}
            params = {"migration": claim.model_dump(mode="json"), "vm": told}
            if by == "pre_live_migration":
                with pytest.raises(Conflict, match="runs on host2"):
                    await speaker(fleet, "host3").call("host2", by, params, **words)
            else:
                third._outbox.put(Envelope(id=f"{claim.id}/R4", to="host2", method=by, params=params, **words))
                await third._outbox.drained("host2")
        await fleet.clock.sleep(1)
        assert fleet.agents["host2"].journal.newest_epoch(vm) == known[0].epoch
        assert fleet.agents["host2"].journal.inbox() == [] and fleet.agents["host2"].journal.open() == []
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED

    run(fleet, scenario)
