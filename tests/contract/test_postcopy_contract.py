"""What every `ports.hypervisor.Hypervisor` does with a guest in post-copy."""

import asyncio
import contextlib
from typing import Any

import pytest

from sterna.domain.errors import Permanent, Unknown, Unreachable
from sterna.domain.model import GuestState
from tests.contract.copies import move, until_incoming, until_reason, until_sending
from tests.contract.two_hosts import Side, TwoHosts, outcome


async def switched(side: Side, uuid: str) -> None:
    """Ask until libvirt can: the disks come first."""
    said = ""
    for _ in range(400):
        try:
            await side.hypervisor.switch_to_postcopy(uuid)
        except Permanent as error:
            said = error.message
        else:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never switched: {said}")


@pytest.mark.parametrize("flags", [(), ("TLS",)], ids=["tcp", "tls"])
async def test_a_stream_that_breaks_in_postcopy_is_joined_again(hosts: TwoHosts, flags: tuple[str, ...]) -> None:
    vm = await hosts.vm("shared", "local", "iscsi")
    more: dict[str, Any] = {"limit_bytes_s": hosts.unhurried, "flags": ("POSTCOPY", *flags)}
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, **more)
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.switch_to_postcopy(vm.uuid)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    await until_incoming(hosts.b, vm.uuid)
    await until_sending(hosts.a, vm.uuid)
    await hosts.b.hypervisor.open_recovery(vm.uuid)
    assert await outcome(hosts.b.hypervisor.end_lost(vm.uuid, 1)) == "conflict"
    await switched(hosts.a, vm.uuid)
    there = await until_reason(hosts.b, vm.uuid, "postcopy")
    assert (there.state, there.epoch, there.ran, there.job_active) == (GuestState.RUNNING, 1, True, True)
    here = await hosts.a.hypervisor.observe(vm.uuid)
    assert (here.state, here.reason, here.job_active) == (GuestState.PAUSED, "postcopy", True)
    hosts.break_stream()
    here = await until_reason(hosts.a, vm.uuid, "postcopy-failed")
    assert here.state is GuestState.PAUSED
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert there.state is GuestState.RUNNING
    assert there.reason in ("postcopy", "postcopy-failed")  # this libvirt does not always notice
    assert await outcome(hosts.a.hypervisor.resume(vm.uuid, 1)) == "conflict"
    assert await outcome(hosts.b.hypervisor.listen_again(vm.uuid, 9, "127.0.0.1")) == "conflict"
    address = hosts.b.stream.removeprefix("tcp://")
    for _ in range(2):  # the second time while the first one's stream is whole, or was just joined
        uri = await hosts.b.hypervisor.listen_again(vm.uuid, 1, address)
        await hosts.a.hypervisor.send_again(vm.uuid, uri)
    there = await until_reason(hosts.b, vm.uuid, "migrated")
    assert (there.state, there.ran) == (GuestState.RUNNING, True)
    here = await hosts.settled(hosts.a, vm.uuid)
    assert (here.state, here.reason) == (GuestState.SHUTOFF, "migrated")
    await asyncio.gather(copy, return_exceptions=True)  # what libvirt answered is no evidence
    await hosts.b.hypervisor.close_recovery(vm.uuid)
    await hosts.clear(vm, 1, hosts.a)
    now = await hosts.b.hypervisor.vm(vm.uuid)
    again = now.model_copy(update={"disks": vm.disks})
    await move(hosts, again, 2, hosts.b, hosts.a)  # as any other
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING


async def test_what_is_left_of_a_guest_that_lost_a_half_in_postcopy_is_ended(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(
        vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=hosts.unhurried, flags=("POSTCOPY",)
    )
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    await until_incoming(hosts.b, vm.uuid)
    await until_sending(hosts.a, vm.uuid)  # before, there is no monitor that could be opened
    await hosts.b.hypervisor.open_recovery(vm.uuid)
    await switched(hosts.a, vm.uuid)
    await until_reason(hosts.b, vm.uuid, "postcopy")
    hosts.kill_qemu(hosts.a, vm)
    # This libvirt does not always notice, and then answers nobody, until the stream is given up: asked again, as
    # `migration/source/copy.py` does, for QEMU may have noticed by itself without libvirt's hearing it.
    address = hosts.b.stream.removeprefix("tcp://")
    async with asyncio.timeout(60):
        while (await hosts.b.hypervisor.observe(vm.uuid)).reason != "postcopy-failed":
            with contextlib.suppress(Permanent, Unreachable):
                await hosts.b.hypervisor.listen_again(vm.uuid, 1, address)
    async with asyncio.timeout(30):
        with pytest.raises(Unknown):
            await copy
    there = await until_reason(hosts.b, vm.uuid, "postcopy-failed")
    assert there.state is GuestState.RUNNING
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.SHUTOFF
    assert await hosts.b.hypervisor.end_lost(vm.uuid, 1) is True
    assert await hosts.b.hypervisor.end_lost(vm.uuid, 1) is False
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert (there.state, there.ran) == (GuestState.SHUTOFF, True)
    await hosts.b.hypervisor.close_recovery(vm.uuid)
