"""A local disk on a base: whether both hosts see the base is found out by a token, and the copy stands on it."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Refused
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.asking import to_check

from .fleet import SimFleet


@pytest.mark.parametrize("dies", ["", "snapshot-volumes", "create-instance-directory", "copy"])
async def test_only_what_differs_from_a_shared_base_is_copied(dies: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("overlay", "local", "shared"))
        if dies:
            host = "host2" if dies.startswith("create") else "host1"
            fleet.agents[host].rules = [(dies, "after", "kill")]
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.world.violations == []
        planned = fleet.agents["host1"].history(fleet.migration).results["pre-live-migration"]["disks"]
        from_base = {d["target"]: d["from_base"] for d in planned}
        assert from_base == {"vda": False, "vdb": False, "vdc": False} | {"vda": True}
        assert not [p for p in fleet.world.snapshot("host1").files if ".sterna-" in p]  # no token stays behind


async def test_a_base_only_the_source_sees_is_refused() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("overlay",))
        source = fleet.world.hosts["host1"]
        domain = source.domains[vm]
        assert domain.live is not None
        from dataclasses import replace

        base = f"{source.instances_dir}/own.base"
        fleet.world.put_file("host1", base, source.file(domain.live.disks[0].backing_path or ""))  # type: ignore[arg-type]
        disks = (domain.live.disks[0].model_copy(update={"backing_path": base}),)
        domain.live = domain.inactive = replace(domain.live, disks=disks)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        assert [r["code"] for r in answer["refusals"]] == ["disk-backing-file"]
        assert answer["refusals"][0]["fix"]


async def test_a_local_disk_that_the_source_may_not_remove_is_refused_before_anything_begins() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("local", "shared"))
        fleet.world.hosts["host1"].instances_dir = "/srv/elsewhere"  # only host2's settings name the disk's folder
        with pytest.raises(Refused, match=r"host1: disk vda: .* is outside /srv/elsewhere"):
            await fleet.start(vm)
        assert fleet.agents["host1"].journal.open() == []
