"""A guest that sees its host's CPU goes to another CPU only where a person accepted that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sterna.domain.errors import Refused
from sterna.domain.objective import Asked
from sterna.domain.policies import Accept
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.asking import to_start
from tests.saga.fleet import SimFleet

PASSED = "<cpu mode='host-passthrough' check='none' migratable='on'/>"
MAXIMUM = "<cpu mode='maximum' check='none' migratable='on'/>"


def guest(fleet: SimFleet, cpu: str, virt_type: str) -> str:
    vm = add_vm(fleet.world, "host1", "tern")
    domain = fleet.world.hosts["host1"].domains[vm]
    assert domain.live is not None
    domain.live = domain.inactive = replace(domain.live, cpu_xml=cpu, virt_type=virt_type)
    return vm


@pytest.mark.parametrize(("cpu", "virt_type"), [(PASSED, "kvm"), (MAXIMUM, "qemu")])
@pytest.mark.parametrize("accept", [False, True])
async def test_another_cpu_needs_a_person(cpu: str, virt_type: str, accept: bool) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = guest(fleet, cpu, virt_type)
        other = fleet.world.hosts["host2"]
        other.cpu = "Opteron"
        other.qemu_version += 1000
        asked = Asked(accept=frozenset({Accept.CPU} if accept else ()))
        started = fleet.client.call("host1", "start_migration", to_start(vm, "host2", asked))
        if accept:
            fleet.migration = (await started)["migration"]["id"]
            assert await fleet.ended() is Status.COMPLETED
            return
        with pytest.raises(Refused) as refused:
            await started
        assert [r.code for r in refused.value.refusals] == ["cpu-not-the-same"]
        assert "--accept cpu" in refused.value.fix


@pytest.mark.parametrize(("cpu", "virt_type"), [(PASSED, "kvm"), (MAXIMUM, "qemu")])
async def test_the_same_cpu_needs_nobody(cpu: str, virt_type: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        await fleet.start(guest(fleet, cpu, virt_type))
        assert await fleet.ended() is Status.COMPLETED
