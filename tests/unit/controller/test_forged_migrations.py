"""What a host says of a migration that a controller has asked for: what was asked for is the controller's word."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import SternaError, Unknown
from sterna.domain.journal import Migration, Role
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.options import Requester
from sterna.domain.status import Status

from ..domain.journals import Book
from .conftest import World
from .fakes import FakeAgent, FakeBus, uuid
from .requests import ID, MOVE, request

AT = "2026-01-01T00:00:00+00:00"
ANOTHER = Requester(user_id="somebody", project_id="else")
FORGED: Data = {
    "vm_name": "not-web1",
    "requested_by": "token:another",
    "options": MigrateRequest(vm="web1", asked=Asked(policy="urgent"), requester=ANOTHER).options,
}


async def test_a_source_changes_nothing_of_what_was_asked_for(world: World) -> None:
    asked = MOVE.model_copy(update={"requested_by": "token:ops"})
    await world.fleet.admit(asked, AT)
    agreed = {"memory_bytes": 1 << 30, "network_hosts": ("a-net", "b-net")}
    forged = asked.model_copy(update=FORGED | {"epoch": 7, "source_address": "10.0.0.1", "created_at": AT})
    forged = forged.model_copy(update={"options": forged.options.model_copy(update=agreed)})
    world.a.write(Book(Role.SOURCE, migration=forged).accepted())
    await world.pull()
    known = (await world.fleet.migration("m1")).migration
    assert (known.vm_name, known.requested_by) == (asked.vm_name, "token:ops")
    assert known.options == asked.options.model_copy(update=agreed)
    assert (known.epoch, known.source_address, known.created_at) == (7, "10.0.0.1", AT)


async def test_nor_by_its_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FakeBus._start_migration

    def forging(bus: FakeBus, agent: FakeAgent, params: Data) -> Data:
        answer = honest(bus, agent, params)
        told = Migration.model_validate(answer["migration"]).model_copy(update=FORGED)
        return answer | {"migration": told.model_dump(mode="json")}

    monkeypatch.setattr(FakeBus, "_start_migration", forging)
    await world.controller.inventory.vms()
    record, _ = await world.controller.migrate(request())
    assert (record.migration.vm_name, record.migration.requested_by) == ("web1", "")
    assert record.migration.options.requester is None
    assert record.migration.options.wanted.policy == request().options.wanted.policy
    assert record.migration == (await world.fleet.migration(ID)).migration


@pytest.mark.parametrize(
    "other", [{"id": "another"}, {"vm_uuid": uuid(2)}, {"source": "b"}, {"destination": "a"}, {"id": "../x"}]
)
async def test_an_answer_about_another_migration_changes_none(
    other: Data, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"id": "another", "vm_uuid": uuid(9), "vm_name": "web9", "source": "b", "destination": "a"}
    another = MOVE.model_copy(update=update)
    before, _ = await world.fleet.admit(another, AT)
    honest = FakeBus._start_migration

    def forging(bus: FakeBus, agent: FakeAgent, params: Data) -> Data:
        answer = honest(bus, agent, params)
        return answer | {"migration": answer["migration"] | other}

    monkeypatch.setattr(FakeBus, "_start_migration", forging)
    await world.controller.inventory.vms()
    record, _ = await world.controller.migrate(request())
    assert "cannot be read" in record.reason and not record.accepted
    assert await world.fleet.migration("another") == before


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "../m1"},
        {"vm_uuid": "x/y"},
        {"vm_name": "x" * 2_000},
        {"requested_by": "x" * 2_000},
        {"requested_by": "a\x1b[2Jb"},
        {"created_at": "yesterday"},
        {"source_address": "h?command=/x"},
        {"epoch": -1},
    ],
)
async def test_a_migration_that_no_agent_writes_is_not_recorded(odd: dict[str, Any], world: World) -> None:
    odd_one = MOVE.model_copy(update=odd)
    world.a.write(Book(Role.SOURCE, migration=odd_one).accepted())
    with pytest.raises(Unknown, match="cannot be read"):
        await world.controller.projector.pull("a")
    with pytest.raises(SternaError):
        await world.fleet.migration(odd_one.id)


@pytest.mark.parametrize("status", [s for s in Status if s.final])
@pytest.mark.parametrize("dead", [False, True])
async def test_a_destination_ends_no_migration_whose_source_is_alive(
    world: World, status: Status, dead: bool
) -> None:
    """It may say how a migration ended only where its source was declared dead: the guest may run there."""
    await world.controller.inventory.vms()
    await world.controller.migrate(request())
    moving = (await world.fleet.migration(ID)).migration
    if dead:
        world.a.listening = False
        await world.controller.registry.set_dead("a", AT)
    world.b.write(Book(Role.DESTINATION, migration=moving).accepted().status(status, "forged"))
    await world.controller.projector.pull("b")
    record, (vm,) = await world.fleet.migration(ID), await world.fleet.vms()
    assert (record.status.final, record.written_off) == (dead, dead)
    assert (vm.migration_id is None) == dead
    assert (vm.host == "b") == (dead and status is Status.COMPLETED)
