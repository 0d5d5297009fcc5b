"""A real libvirtd or ovsdb-server hangs (SIGSTOP): that is said within a bound, and all works again afterwards."""

from __future__ import annotations

import asyncio

import pytest
from remote import adapters_on
from two_hosts import contract_lab

from sterna.domain.errors import Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import OVS
from sterna.lab import Lab, sabotage

__all__ = ["contract_lab"]
NOBODY = "00000000-0000-4000-8000-00000000dead"
NIC = Nic(mac="52:54:00:00:00:ee", plug=OVS, port_id="7d1c64c4-0000-4000-8000-0000000000ee", bridge="br-int")


@pytest.mark.lab
async def test_a_libvirtd_that_hangs(contract_lab: Lab) -> None:
    async with adapters_on(contract_lab, "host1") as there:
        await there.hypervisor.vms()
        await there.events.start(NOBODY)
        sabotage.freeze(sabotage.libvirtd(contract_lab, "host1"))
        try:
            asked = asyncio.ensure_future(there.hypervisor.observe(NOBODY))
            async with asyncio.timeout(25):  # noticed by the hub's own look, before keep-alives run out
                while "Unreachable" not in await there.events.failure(NOBODY):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            with pytest.raises(Unreachable):
                await asyncio.wait_for(asked, 40)
        finally:
            sabotage.thaw(sabotage.libvirtd(contract_lab, "host1"))
        async with asyncio.timeout(20):
            await there.events.start(NOBODY)
            assert NOBODY not in [vm.uuid for vm in await there.hypervisor.vms()]
            await there.hypervisor.observe(NOBODY)


@pytest.mark.lab
async def test_an_ovsdb_server_that_hangs(contract_lab: Lab) -> None:
    async with adapters_on(contract_lab, "host1") as there:
        assert await there.vif.describe(NIC) is None
        sabotage.freeze(sabotage.ovsdb_server(contract_lab, "host1"))
        try:
            for ask in (there.vif.describe(NIC), there.vif.plug(NIC, vm_uuid="vm-1", device="taptest9")):
                with pytest.raises(Unreachable, match="does not answer"):
                    await asyncio.wait_for(ask, 20)
        finally:
            sabotage.thaw(sabotage.ovsdb_server(contract_lab, "host1"))
        async with asyncio.timeout(10):
            assert await there.vif.describe(NIC) is None
            assert await there.vif.made_ahead() == []
