"""A controller signs a permit for each request to migrate: once, and before the source is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sterna.controller.intents import migrate_vm
from sterna.domain.errors import BadRequest, NotFound, SternaError, Temporary, Unknown
from sterna.domain.journal import Migration
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.requests import ID, request

from .conftest import World
from .fakes import HandClock

LIMIT_S = 15.0
"""Of adapters/identity/permits.py."""


@dataclass
class Key:
    """Implements ports.identity.Permits."""

    clock: HandClock
    takes_s: float = 0.0
    errors: list[SternaError | None] = field(default_factory=list)
    signed: int = 0

    async def issue(self, migration: Migration) -> str:
        await self.clock.sleep(self.takes_s)
        self.signed += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return f"signed {migration.id}"

    async def against(self, migration: Migration) -> str:
        return "" if migration.permit == f"signed {migration.id}" else "nobody has signed it"


@pytest.mark.parametrize("error", [BadRequest("no key"), NotFound("no file"), Temporary("the disk hangs")])
async def test_a_key_that_is_lost_later_withdraws_nothing_that_may_run(world: World, error: SternaError) -> None:
    """The source may have accepted the first try, whose answer was lost."""
    key = Key(world.clock, errors=[None, error])
    world.controller._migrate.permits = key
    world.bus.faults["start_migration"] = [Unknown("lost"), None]
    record, _ = await world.controller.migrate(request())
    assert record.accepted and (await world.fleet.migration(ID)).accepted
    permits = [params["permit"] for _, method, params in world.bus.calls if method == "start_migration"]
    assert permits == [f"signed {ID}"] * 2 and key.signed == 1


async def test_without_a_key_the_source_is_not_asked_and_the_vm_is_free(world: World) -> None:
    world.controller._migrate.permits = Key(world.clock, takes_s=LIMIT_S, errors=[Temporary("the disk hangs")])
    with pytest.raises(Temporary, match="the disk hangs"):
        await world.controller.migrate(request())
    assert world.bus.asked("start_migration") == 0
    assert await world.fleet.migrations(Page()) == []
    assert [v.migration_id for v in await world.fleet.vms()] == [None]


async def test_the_time_for_the_signature_is_part_of_the_requests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that sends heartbeats, and no answer, keeps the user waiting for that time and no longer."""
    world.controller._migrate.permits = Key(world.clock, takes_s=LIMIT_S)
    real, began_ms = world.bus.call, [0.0]

    async def call(to: str, method: str, params: Data, **more: float) -> Data:
        if method != "start_migration":
            return await real(to, method, params, **more)  # type: ignore[arg-type]
        began_ms[0] = began_ms[0] or world.clock.ms - LIMIT_S * 1000
        await world.clock.sleep(more["total_s"])
        raise Unknown("no result, though its agent sends heartbeats")

    monkeypatch.setattr(world.bus, "call", call)
    record, _ = await world.controller.migrate(request())
    assert not record.accepted and record.status is Status.QUEUED
    assert world.clock.ms - began_ms[0] <= (migrate_vm.ASKING_S + migrate_vm.ASK_AGAIN_S) * 1000
