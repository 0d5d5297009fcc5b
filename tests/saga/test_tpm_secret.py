"""Guests whose TPM keeps its state encrypted with a secret of libvirt: it is brought, as a disk's is."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from sterna.domain.errors import Refused
from sterna.domain.model import Vm
from sterna.domain.references import Kind, Reference
from sterna.domain.secrets import Secret
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.world.things import SimSecret
from tests.saga.fleet import SimFleet
from tests.saga.playing import run

UUID = "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"
ABOUT = Secret(uuid=UUID, kind="vtpm", usage="tern_tpm")


@pytest.fixture(autouse=True)
def _encrypted() -> Iterator[None]:
    """Every VM's TPM names that secret."""
    plain = SimHypervisor.vm

    async def vm(self: SimHypervisor, name_or_uuid: str) -> Vm:
        found = await plain(self, name_or_uuid)
        named = Reference(kind=Kind.SECRET, name=UUID.upper(), where="TPM")
        return found.model_copy(update={"references": (*found.references, named)})

    with patch.object(SimHypervisor, "vm", vm):
        yield


def guest(fleet: SimFleet, *, private: bool = False) -> str:
    about = ABOUT.model_copy(update={"private": private})
    fleet.world.hosts["host1"].secrets[UUID] = SimSecret(about, b"value")
    return add_vm(fleet.world, "host1", "tern", disks=("shared",))


async def test_it_is_brought() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = fleet.world.hosts["host2"].secrets[UUID]
        assert (there.about.kind, there.about.usage, there.value) == ("vtpm", "tern_tpm", b"value")
        assert (there.about.made_for, there.about.made_by) == (vm, fleet.migration)
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert fleet.world.hosts["host2"].secrets == {}
        assert fleet.world.hosts["host1"].secrets[UUID].value == b"value"

    await run(scenario)


@pytest.mark.parametrize(("host", "step"), [("host2", "make-secrets"), ("host1", "pre-live-migration")])
async def test_a_rollback_takes_it_away(host: str, step: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        before = fleet.snapshots()
        fleet.agents[host].rules.append((step, "after", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() == before

    await run(scenario)


async def test_one_that_cannot_be_read_is_refused_before_anything_is_done() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet, private=True)
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        (refusal,) = refused.value.refusals
        assert refusal.code == "secret-not-carried"
        assert "private" in refusal.message and "usage type='vtpm'" in refusal.fix

    await run(scenario)
