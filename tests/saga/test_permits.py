"""A host takes a migration that nobody has announced to it only if a controller has asked for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.network.native import NativeNetwork
from sterna.controller.controller import Controller
from sterna.domain.errors import BadRequest, Conflict, SternaError, Temporary
from sterna.domain.journal import LONGEST_PERMIT, Migration
from sterna.domain.status import Status
from sterna.domain.trust.callers import CALLERS, Caller
from sterna.domain.untrusted import migration_in
from sterna.ports.records import Envelope
from tests.asking import to_start
from tests.saga.controlled import HoldingFleet, read, started
from tests.saga.fleet import SimFleet
from tests.saga.speaking import CASTS, run, speaker

THREE = ("host1", "host2", "host3")


@dataclass
class Signature:
    """Implements ports.identity.Permits and PermitCheck: good for a migration's own id."""

    failing: int = 0

    async def issue(self, migration: Migration) -> str:
        return f"signed {migration.id}"

    async def against(self, migration: Migration) -> str:
        if self.failing:
            self.failing -= 1
            raise Temporary("the disk does not answer")
        return "" if migration.permit == f"signed {migration.id}" else "it has no permit of a controller"


def checking(fleet: SimFleet, signature: Signature) -> SimFleet:
    for agent in fleet.agents.values():
        agent.settings["permits"] = signature
    return fleet


def forged(vm: str, **more: Any) -> Migration:
    """host3 claims that this VM, which runs on host1, comes from it to host2."""
    told: dict[str, Any] = {
        "id": "made-up",
        "epoch": 2**19,
        "vm_uuid": vm,
        "vm_name": "tern",
        "created_at": "2026-01-01",
    }
    return Migration(**told, source="host3", destination="host2", **more)


def words(migration: Migration) -> dict[str, Any]:
    vm = {"uuid": migration.vm_uuid, "name": "tern", "state": "running", "memory_bytes": 1 << 20, "vcpus": 1}
    return {"migration": migration.model_dump(mode="json"), "vm": vm, "needs": [], "path": "/srv/x", "token": "t"}


async def completes(fleet: SimFleet, controller: Controller) -> None:
    """A VM is moved by a request of this controller."""

    async def inside() -> None:
        async with fleet:
            await controller.start()
            await fleet.clock.sleep(2)
            fleet.vm()
            await started(fleet, controller)
            assert await fleet.ended() is Status.COMPLETED
            await controller.stop()

    await fleet.clock.run(inside())


async def test_a_migration_that_a_controller_has_asked_for(database: str) -> None:
    fleet, signature = checking(SimFleet(), Signature()), Signature()
    records = HoldingFleet(database, fleet.clock)
    controller = Controller(records, fleet.client, fleet.clock, permits=signature)
    await completes(fleet, controller)


class Named(Signature):
    """Good for a migration between hosts that the cloud calls so."""

    async def issue(self, migration: Migration) -> str:
        return f"signed {migration.id} {' '.join(migration.network_hosts)}"

    async def against(self, migration: Migration) -> str:
        return "" if migration.permit == await self.issue(migration) else "it has another name in the cloud"


@pytest.mark.parametrize("names", [("", ""), ("cloud1", ""), ("cloud1", "cloud2")])
async def test_it_is_for_the_names_that_the_hosts_have_told_the_controller(
    names: tuple[str, str], database: str
) -> None:
    fleet = checking(SimFleet(), Named())
    for agent, name in zip(fleet.agents.values(), names, strict=True):
        agent.settings |= {"network_host": name, "network": NativeNetwork()}
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, permits=Named())
    await completes(fleet, controller)


async def test_both_agents_may_die_before_it_is_there(database: str) -> None:
    """The permit is in the source's journal; whether it was shown before makes no difference."""
    fleet, signature = checking(SimFleet(), Signature()), Signature()
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, permits=signature)
    fleet.agents["host1"].rules.append(("pre-live-migration", "before", "kill"))
    fleet.agents["host2"].rules.append(("attach-volumes", "before", "kill"))
    await completes(fleet, controller)


async def test_what_cannot_be_looked_at_now_is_asked_again(database: str) -> None:
    fleet = SimFleet()
    checking(fleet, Signature(failing=2))
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, permits=Signature())
    await completes(fleet, controller)


def test_a_rollback_does_not_need_what_a_destination_can_never_check() -> None:
    """P3 has left nothing there. R4 waits for the permit as well, and the source does not wait for R4."""
    fleet = checking(SimFleet(), Signature(failing=10**9))

    async def scenario() -> None:
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended(limit_s=180) is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]
        (waits,) = fleet.agents["host2"].journal.inbox()
        assert waits.method == "rollback_live_migration_at_destination"
        for agent in fleet.agents.values():
            agent.settings["permits"] = Signature()
        await fleet.agents["host2"].kill()
        await fleet.agents["host2"].start()
        await fleet.clock.sleep(15)
        assert fleet.agents["host2"].journal.inbox() == []

    run(fleet, scenario)


async def test_a_controller_whose_records_are_lost_finds_the_permit_in_the_journals(
    database: str, tmp_path: Path
) -> None:
    """So it believes what the hosts say of this migration, as if it had asked for it."""
    fleet, signature = checking(SimFleet(), Signature()), Signature()

    def new(database: str, permits: Signature | None) -> Controller:
        return Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock, permits=permits)

    async def inside() -> None:
        async with fleet:
            first = new(database, signature)
            await first.start()
            await fleet.clock.sleep(2)
            fleet.vm()
            await started(fleet, first)
            assert await fleet.ended() is Status.COMPLETED
            await first.stop()
            for name, permits in (("with", signature), ("without", None)):
                other = new(f"sqlite:///{tmp_path}/{name}.db", permits)
                await other.start()
                await fleet.clock.sleep(2)
                record = await read(other, fleet.migration)
                assert record.status is Status.COMPLETED
                assert (record.reported_by == "") == (permits is not None)
                await other.stop()

    await fleet.clock.run(inside())


MADE_UP = [
    *(("call", m) for m, caller in CALLERS.items() if caller is Caller.SOURCE),
    *(("cast", m) for m in CASTS),
]


@pytest.mark.parametrize(("kind", "method"), MADE_UP)
def test_a_host_that_made_one_up_leaves_nothing_behind(kind: str, method: str) -> None:
    """Of a VM that does not run there: no lock, no epoch, no entry."""
    fleet = checking(SimFleet(THREE), Signature())

    async def scenario() -> None:
        vm = fleet.vm()
        migration = forged(vm, permit="signed another")
        assert migration_in(words(migration)) == migration, "nothing else is wrong with it"
        about: dict[str, Any] = {"migration_id": migration.id, "epoch": migration.epoch}
        if kind == "call":
            with contextlib.suppress(SternaError):
                await speaker(fleet, "host3").call("host2", method, words(migration), **about)
        else:
            third = fleet.agents["host3"]._agent
            assert third is not None
            third._outbox.put(Envelope(id="forged", to="host2", method=method, params=words(migration), **about))
            await fleet.clock.sleep(5)
        journal = fleet.agents["host2"].journal
        assert journal.get(migration.id) is None
        assert journal.newest_epoch(vm) == 0 and journal.holder(vm) is None

    run(fleet, scenario)


def test_whoever_speaks_for_a_controller_without_its_key_moves_nothing() -> None:
    """As the server of the bus can."""
    fleet = checking(SimFleet(), Signature())

    async def scenario() -> None:
        vm = fleet.vm()
        before = fleet.own("host2")
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents["host2"].journal.newest_epoch(vm) == 0
        assert fleet.own("host2") == before and fleet.world.hosts["host1"].domains[vm]

    run(fleet, scenario)


def test_it_is_said_why() -> None:
    fleet = checking(SimFleet(THREE), Signature())

    async def scenario() -> None:
        migration = forged(fleet.vm())
        about: dict[str, Any] = {"migration_id": migration.id, "epoch": migration.epoch}
        with pytest.raises(Conflict, match="only if a controller has requested it: it has no permit"):
            await speaker(fleet, "host3").call("host2", "pre_live_migration", words(migration), **about)

    run(fleet, scenario)


@pytest.mark.parametrize("permit", [7, "x" * (LONGEST_PERMIT + 1)])
async def test_a_source_takes_no_permit_that_is_none(permit: object) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(BadRequest, match="permit"):
            await fleet.client.call("host1", "start_migration", to_start(fleet.vm(), "host2") | {"permit": permit})
