"""Who asked for a migration stands in the journals of both hosts."""

from __future__ import annotations

import pytest

from sterna.domain.journal import Kind
from tests.asking import to_start
from tests.saga.fleet import SimFleet


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("token:ci", "token:ci"),
        ("", ""),
        (None, ""),
        (["x"], ""),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("x" * 999, "x" * 255),
    ],
)
async def test_who_asked_is_in_the_journals(told: object, kept: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        params = to_start(vm, "host2") | {"requested_by": told}
        fleet.migration = str(params["id"])
        await fleet.client.call("host1", "start_migration", params)
        await fleet.ended()
        for host in ("host1", "host2"):
            (accepted,) = [
                e for e in fleet.agents[host].journal.entries(fleet.migration) if e.kind is Kind.ACCEPTED
            ]
            assert accepted.data["requested_by"] == kept


async def test_a_controller_that_does_not_say_it_is_served_all_the_same() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        params = to_start(fleet.vm(), "host2")
        del params["requested_by"]
        fleet.migration = str(params["id"])
        await fleet.client.call("host1", "start_migration", params)
        await fleet.ended()
        assert fleet.agents["host1"].journal.get(fleet.migration) is not None
