"""A real libvirtd or ovsdb-server hangs (SIGSTOP): that is said within a bound, and all works again afterwards."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import OVS
from sterna.lab import Lab, sabotage
from tests.contract.remote import adapters_on

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


@pytest.mark.lab
async def test_a_guest_that_another_call_holds_is_busy_and_not_refused(contract_lab: Lab) -> None:
    guest, host = contract_lab.create_vm("held", "host1"), contract_lab.hosts["host1"]
    async with adapters_on(contract_lab, "host1") as there:
        sabotage.freeze(sabotage.qemu(contract_lab, "host1", "held"))
        holds = asyncio.ensure_future(
            asyncio.to_thread(host.run, ["timeout", "60", "virsh", "suspend", "held"], check=False)
        )
        try:
            async with asyncio.timeout(80):  # libvirt waits 30 s for its lock
                while True:
                    try:
                        await there.hypervisor.mark(guest.uuid, "m1", 1)
                    except Temporary as error:
                        assert "state change lock" in error.message and error.fix
                        break
        finally:
            sabotage.thaw(sabotage.qemu(contract_lab, "host1", "held"))
        await holds
        await there.hypervisor.mark(guest.uuid, "m1", 2)
    contract_lab.remove_vm("held")


@pytest.mark.lab
async def test_a_guest_whose_qemu_hangs_holds_up_no_other(contract_lab: Lab) -> None:
    hung, other = (contract_lab.create_vm(name, "host1") for name in ("hung", "other"))
    async with adapters_on(contract_lab, "host1") as there:
        hypervisor = there.hypervisor
        assert await hypervisor.check_outgoing(hung.uuid) == []
        named = {claim.path for claim in await hypervisor.claims()}
        sabotage.freeze(sabotage.qemu(contract_lab, "host1", "hung"))
        asked = [asyncio.ensure_future(ask(hung.uuid)) for ask in (hypervisor.check_outgoing, hypervisor.vm)]
        try:
            assert not (await asyncio.wait(asked, timeout=1))[0]  # they wait for QEMU
            async with asyncio.timeout(10):
                assert await hypervisor.check_outgoing(other.uuid) == []
                await hypervisor.mark(other.uuid, "m1", 1)
                assert (await hypervisor.vm("other")).uuid == other.uuid
                assert (await hypervisor.observe(other.uuid)).epoch == 1
                assert len(await hypervisor.vms()) == 2
                assert {claim.path for claim in await hypervisor.claims()} == named  # libvirtd's files have them
                await hypervisor.unused_secrets()
        finally:
            sabotage.thaw(sabotage.qemu(contract_lab, "host1", "hung"))
        assert (await asked[0], (await asked[1]).name) == ([], "hung")
    for guest in (hung, other):
        contract_lab.remove_vm(guest.name)
