"""Copies by hand, and how far they are, for the contract tests of hypervisors."""

import asyncio
from typing import Any

from sterna.domain.model import Vm
from tests.contract.two_hosts import Side, TwoHosts


async def move(hosts: TwoHosts, vm: Vm, epoch: int, source: Side, destination: Side) -> list[str]:
    """A whole migration by hand; what the destination saw, in order."""
    plan = await hosts.prepare(vm, epoch, source=source, destination=destination)
    async with destination.hypervisor.events(vm.uuid) as events:
        await source.hypervisor.migrate(vm.uuid, plan)
        seen = []
        async with asyncio.timeout(10):
            async for event in events:
                seen.append(event.kind)
                if event.kind == "resumed-migrated":
                    break
    return seen


async def until_incoming(side: Side, uuid: str) -> Any:
    """The observation of a guest that waits for its memory here."""
    async with asyncio.timeout(20):
        while True:
            seen = await side.hypervisor.observe(uuid)
            if seen.reason == "incoming" and seen.job_active:
                return seen
            await asyncio.sleep(0.02)


async def until_reason(side: Side, uuid: str, *reasons: str) -> Any:
    """The observation once its reason is one of these."""
    async with asyncio.timeout(30):
        while True:
            seen = await side.hypervisor.observe(uuid)
            if seen.reason in reasons:
                return seen
            await asyncio.sleep(0.02)


async def until_sending(side: Side, uuid: str) -> None:
    """Until something is under way: the destination's QEMU is there, with all its monitors."""
    async with asyncio.timeout(30):
        while True:
            sample = await side.hypervisor.sample(uuid)
            if sample is not None and (sample.disk_processed or sample.memory_processed):
                return
            await asyncio.sleep(0.02)
