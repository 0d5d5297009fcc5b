"""Storage knows hosts by their initiators' names: two hosts with one name are one host to it."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Refused

from .fleet import SimFleet


async def test_two_hosts_with_one_initiator_name_are_refused() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        hosts = fleet.world.hosts
        hosts["host2"].initiator = hosts["host1"].initiator  # one was cloned from the other
        with pytest.raises(Refused, match="initiator name") as refused:
            await fleet.start(fleet.vm())
        assert [r.code for r in refused.value.refusals] == ["initiator-shared"]
        assert "vdc" in refused.value.refusals[0].message and refused.value.refusals[0].fix
        assert not fleet.world.violations


async def test_it_is_the_running_guests_own_initiator_that_counts() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, hosts = fleet.vm(), fleet.world.hosts
        hosts["host2"].initiator, hosts["host1"].initiator = hosts["host1"].initiator, "iqn.2026-11.org.sterna:new"
        with pytest.raises(Refused, match="initiator name"):
            await fleet.start(vm)
