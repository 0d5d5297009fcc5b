"""A VM that is changed after its destination has prepared is not copied: its disks would be the old ones there."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from unittest.mock import patch

import pytest

from sterna.domain.copying import CopyPlan
from sterna.domain.model import Disk, DiskKind, Nic
from sterna.domain.status import Status
from sterna.sim.libvirt.mover import SimMover
from sterna.sim.world.things import Definition
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import one, run, when

Change = Callable[[Definition], Definition]


def disks(change: Callable[[tuple[Disk, ...]], tuple[Disk, ...]]) -> Change:
    return lambda live: replace(live, disks=change(live.disks))


def first(**fields: object) -> Change:
    return disks(lambda known: (known[0].model_copy(update=fields), *known[1:]))


def nics(change: Callable[[tuple[Nic, ...]], tuple[Nic, ...]]) -> Change:
    return lambda live: replace(live, nics=change(live.nics))


SNAPSHOT = first(path="/srv/shared/overlay.qcow2", backing_path="/srv/shared/disk.qcow2")
CHANGES = {
    "a snapshot without metadata": (SNAPSHOT, "vda is /srv/shared/overlay.qcow2 on /srv/shared/disk.qcow2"),
    "a commit below the disk": (first(backing_path="/srv/shared/base.qcow2"), "vda is "),
    "a medium was changed": (first(path="/srv/shared/other.iso"), "vda is /srv/shared/other.iso"),
    "a medium was ejected": (first(kind=DiskKind.EMPTY, path=None), "vda is empty now"),
    "a disk was attached": (
        disks(lambda known: (*known, known[0].model_copy(update={"target": "vdz", "path": "/srv/shared/more"}))),
        "vdz was attached",
    ),
    "a disk was detached": (disks(lambda known: known[1:]), "vda was detached"),
    "a NIC was attached": (
        nics(lambda known: (*known, known[0].model_copy(update={"mac": "52:54:00:00:99:99"}))),
        "NIC 52:54:00:00:99:99 was attached",
    ),
    "a NIC was detached": (nics(lambda known: known[1:]), "was detached"),
}


def change_vm(fleet: SimFleet, change: Change) -> None:
    host = fleet.world.hosts["host1"]
    domain = host.domains[one(fleet)]
    before = not_none(domain.live)
    domain.live = change(before)
    content = not_none(host.file(not_none(before.disks[0].path)))
    for path in (disk.path for disk in domain.live.disks):
        if path and host.file(path) is None:
            fleet.world.put_file("host1", path, copy(content))


async def nothing_moved(fleet: SimFleet, said: str) -> None:
    vm = one(fleet)
    assert await fleet.ended(limit_s=60) is Status.FAILED
    assert fleet.world.running(vm) == ["host1"] and vm not in fleet.world.hosts["host2"].domains
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    (reason,) = (e.data["reason"] for e in entries if e.data.get("status") == Status.FAILED)
    assert said in reason and "was changed" in reason


@pytest.mark.parametrize("change, said", CHANGES.values(), ids=list(CHANGES))
async def test_it_is_refused_right_before_the_copy(change: Change, said: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm())
        await nothing_moved(fleet, said)
        assert not fleet.agents["host1"].history(fleet.migration).notes.get("copy-started")

    fleet = SimFleet()
    when(fleet.agents["host1"], "copy", lambda: change_vm(fleet, change))
    await run(scenario, fleet)


async def test_a_change_in_the_last_moment_ends_the_copy() -> None:
    usual = SimMover.migrate

    async def late(mover: SimMover, uuid: str, plan: CopyPlan) -> None:
        change_vm(fleet, SNAPSHOT)
        await usual(mover, uuid, plan)

    async def scenario(fleet: SimFleet) -> None:
        with patch.object(SimMover, "migrate", late):
            await fleet.start(fleet.vm())
            await nothing_moved(fleet, "overlay.qcow2")
        assert fleet.agents["host1"].history(fleet.migration).notes.get("copy-started") is not None

    fleet = SimFleet()
    await run(scenario, fleet)


async def test_a_vm_that_is_as_it_was_is_copied() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_a_port_that_its_switch_has_lost_does_not_count_as_moved() -> None:
    """Of a NIC with a tap the definition does not name the bridge: only the switch knows it."""

    def lose_port(fleet: SimFleet) -> None:
        host = fleet.world.hosts["host1"]
        domain = host.domains[one(fleet)]
        domain.live = nics(lambda known: tuple(n.model_copy(update={"bridge": None}) for n in known))(
            not_none(domain.live)
        )
        host.ports.clear()

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED

    fleet = SimFleet()
    when(fleet.agents["host1"], "copy", lambda: lose_port(fleet))
    await run(scenario, fleet, violations=1)  # the guest is off its network until it is on the destination
