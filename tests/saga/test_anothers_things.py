"""A source that names the port or the volume of another VM: the destination asks the cloud's services, and changes
nothing of what is not this VM's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import Change
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.lying import change_call
from tests.saga.playing import run

HOSTS = ("host1", "host2", "host3")
HOSTILE = "host1"


def changes_of(fleet: SimFleet, what: str, subject: str) -> list[Change]:
    """What happens to it from now on."""
    found = list[Change]()
    fleet.world.watch(
        lambda change: found.append(change) if (change.what, change.subject) == (what, subject) else None
    )
    return found


def port_of(fleet: SimFleet, host: str, vm: str) -> str:
    (nic,) = fleet.world.hosts[host].domains[vm].definition.nics
    return not_none(nic.port_id)


def target_of(fleet: SimFleet, host: str, vm: str) -> str:
    (disk,) = fleet.world.hosts[host].domains[vm].definition.disks
    return not_none(disk.iscsi).target


def naming(field: str, change: Callable[[Data], Data]) -> Callable[[Data], Data]:
    """P3 with another NIC, or another disk."""
    return lambda params: params | {"vm": params["vm"] | {field: [change(one) for one in params["vm"][field]]}}


def with_port(port_id: str) -> Callable[[Data], Data]:
    return naming("nics", lambda nic: nic | {"port_id": port_id})


def with_target(target: str, vm_uuid: str | None) -> Callable[[Data], Data]:
    return naming("disks", lambda disk: disk | {"iscsi": disk["iscsi"] | {"target": target}, "vm_uuid": vm_uuid})


def codes(errors: list[SternaError]) -> set[str]:
    return {refusal.code for error in errors for refusal in getattr(error, "refusals", ())}


async def turned_away(
    fleet: SimFleet, monkeypatch: pytest.MonkeyPatch, change: Callable[[Data], Data], **vm: Any
) -> list[SternaError]:
    """Move a VM with what host1 says in P3; what host2 answered. The VM stays where it is."""
    said = change_call(monkeypatch, "pre_live_migration", change)
    mine = add_vm(fleet.world, HOSTILE, "mine", **vm)
    await fleet.start(mine)
    assert await fleet.ended() is Status.FAILED
    assert fleet.world.running(mine) == [HOSTILE]
    return said


@pytest.mark.parametrize("at", ["host2", "host3"])
async def test_a_port_of_another_vm_keeps_its_bindings(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(fleet: SimFleet) -> None:
        victim = add_vm(fleet.world, at, "victim")
        port = port_of(fleet, at, victim)
        before, seen = dict(fleet.world.bindings[port]), changes_of(fleet, "binding", port)
        said = await turned_away(fleet, monkeypatch, with_port(port))
        assert codes(said) == {"port-not-of-vm"}
        assert (fleet.world.bindings[port], seen) == (before, [])

    await run(scenario, SimFleet(HOSTS))


@pytest.mark.parametrize("bound", [{}, {"host2": True}, {"host2": False}, {"host2": False, "host3": True}])
async def test_nor_is_a_port_of_no_vm_touched(bound: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(fleet: SimFleet) -> None:
        port = "0fa10000-0000-4000-8000-000000000001"
        fleet.world.bindings[port] = dict(bound)
        seen = changes_of(fleet, "binding", port)
        said = await turned_away(fleet, monkeypatch, with_port(port))
        assert codes(said) == {"port-not-of-vm"}
        assert (fleet.world.bindings[port], seen) == (bound, [])

    await run(scenario, SimFleet(HOSTS))


async def test_a_port_that_the_service_has_on_a_third_host_is_not_taken_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Right before P5: it is the VM's, but not where the VM is said to come from."""

    async def scenario(fleet: SimFleet) -> None:
        def move(params: Data) -> Data:
            (nic,) = params["vm"]["nics"]
            fleet.world.bindings[nic["port_id"]] = {"host3": True, "host2": False}
            return params

        said = await turned_away(fleet, monkeypatch, move)
        assert codes(said) == {"port-elsewhere"}

    await run(scenario, SimFleet(HOSTS))


@pytest.mark.parametrize(
    "names", [("host3", "host2"), ("host1", "host3"), ("host2", "host2"), ("host2", "host1")], ids=" ".join
)
async def test_a_host_is_called_by_the_cloud_what_it_is_called(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        def rename(params: Data) -> Data:
            asked = params["migration"]
            return params | {"migration": asked | {"options": asked["options"] | {"network_hosts": names}}}

        said = await turned_away(fleet, monkeypatch, rename)
        assert said and not any("host3" in hosts for hosts in fleet.world.bindings.values())

    await run(scenario, SimFleet(HOSTS))


@pytest.mark.parametrize("claimed", ["", "victim", "mine"])
async def test_a_volume_of_another_vm_admits_nobody_new(claimed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(fleet: SimFleet) -> None:
        victim = add_vm(fleet.world, "host3", "victim", disks=("iscsi",))
        target = target_of(fleet, "host3", victim)
        seen = changes_of(fleet, "admission", target)
        uuid = {"": None, "victim": victim}.get(claimed, "")

        def change(params: Data) -> Data:
            return with_target(target, params["vm"]["uuid"] if uuid == "" else uuid)(params)

        said = await turned_away(fleet, monkeypatch, change, disks=("iscsi",))
        assert said and seen == []

    await run(scenario, SimFleet(HOSTS))


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("kind", ["iscsi", "block"])
async def test_a_volume_of_a_vm_of_the_destination_stays_its_own(
    kind: str, running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a service that admits hosts and knows no VMs: what is withdrawn from the host is withdrawn from all its
    VMs."""

    async def scenario(fleet: SimFleet) -> None:
        victim = add_vm(fleet.world, "host2", "victim", disks=(kind,), running=running)
        target = target_of(fleet, "host2", victim)
        for each in fleet.world.iscsi.targets.values():
            each.vm_uuid = ""
        sessions = set(fleet.world.iscsi.sessions)
        seen = changes_of(fleet, "admission", target)
        said = await turned_away(fleet, monkeypatch, with_target(target, None), disks=(kind,))
        assert codes(said) == {"volume-shared"}
        assert seen == [] and sessions <= fleet.world.iscsi.sessions

    await run(scenario, SimFleet(HOSTS))


async def test_a_volume_of_a_vm_on_its_way_to_the_destination_stays_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        victim = add_vm(fleet.world, "host3", "victim", disks=("iscsi",))
        target = target_of(fleet, "host3", victim)
        await fleet.start(victim, source="host3", asked=None)
        first = fleet.migration
        while not fleet.agents["host2"].history(first).plans:
            await fleet.clock.sleep(0.01)
        for each in fleet.world.iscsi.targets.values():
            each.vm_uuid = ""
        said = await turned_away(fleet, monkeypatch, with_target(target, None), disks=("iscsi",))
        assert codes(said) == {"volume-shared"}
        fleet.migration = first
        assert await fleet.ended("host3") is Status.COMPLETED
        assert fleet.world.running(victim) == ["host2"]

    await run(scenario, SimFleet(HOSTS))
