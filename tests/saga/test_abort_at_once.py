"""An abort while the destination prepares, or waits for its network, is not put off until it is ready. Nor is it
where this host looks at many disks, or a service is asked for many ports: nothing more is begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sterna.domain.plugs import HOSTDEV, OVS
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.network import SimNeutron
from sterna.sim.ports.storage import SimStorage
from sterna.sim.world.things import SimFile
from tests.saga.fleet import SimFleet
from tests.saga.media import seed_of, with_medium
from tests.saga.playing import SLOW_S, Slow, run, when


async def abort_within(fleet: SimFleet, slow: Slow, vm: str, *, limit_s: float, **more: Any) -> None:
    """Abort in the middle of the first of these calls. The migration ends within `limit_s`."""
    before = fleet.snapshots()
    await fleet.start(vm, **more)
    while not slow.began_ms:
        await fleet.clock.sleep(0.5)
    await fleet.abort()
    assert await fleet.ended(limit_s=limit_s) is Status.CANCELLED
    assert fleet.snapshots() == before


async def test_an_abort_does_not_wait_for_a_destination_that_takes_its_time() -> None:
    fleet = SimFleet()
    when(fleet.agents["host2"], "connect-volumes", lambda: fleet.clock.sleep(400))

    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        before = fleet.snapshots()
        await fleet.start(vm)
        await fleet.clock.sleep(5)
        await fleet.abort()
        await fleet.clock.sleep(70)  # R3 asks for a minute, then leaves it to R4's cast
        assert fleet.agents["host1"].journal.holder(vm) is None  # R8: it may migrate again
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.snapshots() == before

    await run(scenario, fleet)


@pytest.mark.parametrize("after_s", [1, 100])
async def test_nor_for_its_network(after_s: int) -> None:
    fleet = SimFleet()
    fleet.agents["host2"].settings["vif_plugging_timeout_s"] = 300.0

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm(vlan=None))  # no agent gives its ports a tag
        await fleet.clock.sleep(after_s)
        await fleet.abort()
        assert await fleet.ended(limit_s=20) is Status.CANCELLED

    await run(scenario, fleet)


@pytest.mark.parametrize("call", ["sight", "digest"])
async def test_nor_for_its_files(call: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        path = seed_of(fleet)
        fleet.world.put_file("host1", path, SimFile(4, content="seed"))
        vm = with_medium(fleet, path)
        with Slow(fleet, SimStorage, call, host="host2") as slow:
            slow.from_step(fleet.agents["host1"], "snapshot-volumes")
            await abort_within(fleet, slow, vm, limit_s=20)

    await run(scenario)


async def test_nor_for_a_rehearsal_there() -> None:
    async def scenario(fleet: SimFleet) -> None:
        with Slow(fleet, SimHypervisor, "check_definition", host="host2") as slow:
            await abort_within(fleet, slow, fleet.vm(), limit_s=20, rehearse="prepare")

    await run(scenario)


async def test_no_further_disk_is_looked_at() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("local",) * 3)
        with Slow(fleet, SimStorage, "owner_of", host="host1") as slow:
            await abort_within(fleet, slow, vm, limit_s=SLOW_S + 20)
            assert len(slow.began_ms) == 1

    await run(scenario)


async def test_no_further_file_is_compared() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",) * 3)
        with Slow(fleet, SimStorage, "leave_token", host="host1") as slow:
            slow.from_step(fleet.agents["host1"], "snapshot-volumes")
            await abort_within(fleet, slow, vm, limit_s=SLOW_S + 20)
            assert len(slow.began_ms) == 1

    await run(scenario)


async def test_no_further_port_is_asked_for() -> None:
    async def scenario(fleet: SimFleet) -> None:
        with Slow(fleet, SimNeutron, "act") as slow:
            vm, before = fleet.vm(nics=4), fleet.snapshots()
            await fleet.start(vm)
            while not slow.began_ms:
                await fleet.clock.sleep(0.5)
            await fleet.abort()
            while fleet.agents["host1"].history(fleet.migration).turned_back is None:
                await fleet.clock.sleep(0.5)
            assert slow.ended == 1  # and R6 has begun
            slow.quick = True
            assert await fleet.ended(limit_s=SLOW_S + 20) is Status.CANCELLED
            assert fleet.snapshots() == before

    await run(scenario)


async def test_no_further_device_is_taken_from_the_guest() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", plugs=(OVS, HOSTDEV, HOSTDEV))
        here = fleet.world.hosts["host1"]
        domain = here.domains[vm]
        *others, second = domain.definition.nics
        nics = (*others, second.model_copy(update={"mac": "52:54:00:00:00:99", "pci": list(here.functions)[1]}))
        domain.live = domain.inactive = replace(domain.definition, nics=nics)
        with Slow(fleet, SimHypervisor, "detach_nic", host="host1") as slow:
            await abort_within(fleet, slow, vm, limit_s=SLOW_S + 20)
            assert len(slow.began_ms) == 1

    await run(scenario)
