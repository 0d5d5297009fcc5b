"""The reasons with which a controller refuses a migration."""

from __future__ import annotations

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import Refused
from sterna.domain.model import Refusal
from sterna.ports.fleet import Page

from .conftest import World


async def codes(world: World, asked: MigrateRequest, error: type[Exception] = Refused) -> list[str]:
    with pytest.raises(error) as raised:
        await world.controller.migrate(asked)
    assert await world.fleet.migrations(Page()) == []  # a refusal leaves nothing behind
    assert all(v.migration_id is None for v in await world.fleet.vms())
    reasons: tuple[Refusal, ...] = raised.value.refusals  # type: ignore[attr-defined]
    assert all(r.message and r.fix for r in reasons if r.code != "same-host")
    return sorted(r.code for r in reasons)


async def refusals(world: World, asked: MigrateRequest) -> tuple[Refusal, ...]:
    with pytest.raises(Refused) as raised:
        await world.controller.migrate(asked)
    return raised.value.refusals
