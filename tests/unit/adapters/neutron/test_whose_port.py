"""Whose a port is, and where, is Neutron's word; what comes from another host is one part of a request's path."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from sterna.domain.errors import NotFound, Refused, Temporary
from tests.unit.adapters.neutron.scripted_neutron import MOVE, PORT, VM, ScriptedNeutron, serving, vm


@pytest.mark.parametrize("owner", ["0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11", "dhcp-5c5b1a3e", ""])
@pytest.mark.parametrize("extended", [True, False])
async def test_a_port_of_another_vm_is_refused_and_left_alone(owner: str, extended: bool) -> None:
    """Whatever a source names: in the plan, at P5, and in everything that a host undoes or finishes."""
    neutron = ScriptedNeutron(extended=extended)
    neutron.owner = owner
    with serving(neutron) as (network, cloud):
        (refusal,) = await network.check(vm(), *MOVE)
        assert refusal.code == "port-not-of-vm" and VM in refusal.fix
        with pytest.raises(Refused) as refused:
            await network.nics_for(vm(), *MOVE)
        assert [r.code for r in refused.value.refusals] == ["port-not-of-vm"]
        for there in ("host1", "host2"):
            await network.settle(vm(), "host1", there)
            await network.withdraw(vm(), there, "host1")
            assert not await network.give_back(vm(), there, "host1")
        if extended:
            with pytest.raises(NotFound, match="not for"):
                await network.prepare(vm(), *MOVE)
        assert cloud.changes() == []


@pytest.mark.parametrize("extended", [True, False])
async def test_nor_is_one_taken_from_a_host_that_the_vm_does_not_come_from(extended: bool) -> None:
    with serving(ScriptedNeutron(extended=extended)) as (network, cloud):
        with pytest.raises(Refused) as refused:
            await network.nics_for(vm(), "host3", "host2")
        assert [r.code for r in refused.value.refusals] == ["port-elsewhere"]
        assert cloud.changes() == []


@pytest.mark.parametrize("port_id", [f"{PORT}?", f"{PORT}#", f"x/../{PORT}", f"{PORT}%3f", f"../ports/{PORT}"])
async def test_an_id_is_one_part_of_a_path(port_id: str) -> None:
    """It comes from another host: what is asked for must not be another thing of Neutron's."""
    with serving(ScriptedNeutron()) as (network, cloud):
        for act in (network.nics_for(vm(port_id), *MOVE), network.prepare(vm(port_id), *MOVE)):
            with pytest.raises((Refused, NotFound)):
                await act
        await network.withdraw(vm(port_id), *MOVE)
        assert cloud.changes() == []
        assert not any(one.path.partition("?")[0].endswith(f"/{PORT}") for one in cloud.asked)


@pytest.mark.parametrize("host", ["host2?x=/", "../../networks", "host2&binary=x", "host2#"])
async def test_nor_is_a_hosts_name_more_than_that(host: str) -> None:
    with serving(ScriptedNeutron()) as (network, cloud):
        with pytest.raises(Temporary):
            await network.switch(vm(), "host1", host)
        await network.check(vm(), "host1", host)
        asked = [one.path.partition("/v2.0")[2] for one in cloud.asked]
        assert any(path.endswith(f"/bindings/{quote(host, safe='')}/activate") for path in asked)
        assert f"/agents?host={quote(host, safe='')}" in asked


async def test_p5_asks_for_each_thing_once() -> None:
    with serving(ScriptedNeutron()) as (network, cloud):
        await network.prepare(vm(), *MOVE)
        before = len(cloud.asked)
        await network.nics_for(vm(), *MOVE)
        asked = [one.path.partition("/v2.0")[2] for one in cloud.asked[before:]]
        assert len(asked) == len(set(asked)) == 3
