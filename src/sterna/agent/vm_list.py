"""Reports the changes of this host's VMs to the controllers, so that they need not ask every host.

libvirt's events say when to list them; besides, they are listed regularly. Changes are numbered: a controller that
has missed one asks for the whole list.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Protocol

import structlog

from sterna.domain.errors import SternaError
from sterna.domain.hosts import VmSummary
from sterna.domain.model import Data
from sterna.domain.sightings import MOST_CHANGES, text_of
from sterna.kit.digests import digest_of
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import paused
from sterna.ports.clock import Clock
from sterna.ports.hypervisor import Changes, Descriptions
from sterna.rpc.client import RpcClient
from sterna.rpc.subjects import vms_topic

log = structlog.get_logger(__name__)

LOOK_AFTER_S = 0.5
"""The list is made so long after an event. By then a guest that is being handed over no longer needs all CPUs, and
one list serves many events."""
FOLLOW_AGAIN_S = 2.0
LOOK_ANYWAY_S = 15.0
"""Events can be missed."""


class Followed(Descriptions, Changes, Protocol):
    """What is asked of the hypervisor."""


class VmList:
    """What controllers receive about one host's VMs."""

    def __init__(self, hypervisor: Followed, client: RpcClient, boot: str, clock: Clock) -> None:
        self._hypervisor, self._client, self._boot, self._clock = hypervisor, client, boot, clock
        self._known: dict[str, VmSummary] = {}
        self._seq = 0
        """Of the last change; 0 before the first look."""
        self._digest = ""
        self._looks = count(1)
        self._last_look = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Follow the hypervisor."""
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tell())]

    async def stop(self) -> None:
        """Tell nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def mark(self) -> Data | None:
        """For the beacon: how far has been counted, and the digest of the list. None before the first look."""
        return {"seq": self._seq, "digest": self._digest} if self._seq else None

    async def whole(self) -> Data:
        """All VMs as they are now, and up to which change that is. Raises Unreachable."""
        await self._look()
        vms = [vm.model_dump(mode="json") for vm in self._known.values()]
        return {"vms": vms, "boot": self._boot, "seq": self._seq, "digest": self._digest}

    async def _follow(self) -> None:
        """Notice every change, whatever goes wrong."""
        while True:
            try:
                with own_cancellation_only():
                    async with self._hypervisor.changes() as changes:
                        self._changed.set()  # some may have been missed before
                        async for _ in changes:
                            self._changed.set()
            except SternaError as error:
                log.debug("changes of VMs are not reported now", why=error.message)
            except Exception:
                log.exception("following the changes of VMs failed")
            await self._clock.sleep(FOLLOW_AGAIN_S)

    async def _tell(self) -> None:
        last_error = ""
        while True:
            self._changed.clear()
            try:
                with own_cancellation_only():
                    await self._look()
                last_error = ""
            except Exception as error:
                if str(error) != last_error and not isinstance(error, SternaError):
                    log.exception("listing the VMs failed")
                last_error = str(error)
            await paused(self._clock, LOOK_ANYWAY_S, self._changed)
            await self._clock.sleep(LOOK_AFTER_S)

    async def _look(self) -> None:
        """List the VMs, and tell what has changed. Raises Unreachable."""
        look = next(self._looks)
        vms = {vm.uuid: vm for vm in await self._hypervisor.vms()}
        if look < self._last_look:
            return  # one that began later has told more
        self._last_look = look
        seen = [vm for uuid, vm in vms.items() if self._known.get(uuid) != vm]
        gone = self._known.keys() - vms.keys()
        first = not self._seq
        if not (seen or gone or first):
            return
        self._known, self._seq, self._digest = vms, self._seq + 1, digest_of(text_of(vms.values()))
        if not first and len(seen) + len(gone) <= MOST_CHANGES:  # else the beacon says that there is something
            await self._client.announce(vms_topic(self._client.host_name), self._change(seen, sorted(gone)))

    def _change(self, seen: list[VmSummary], gone: list[str]) -> Data:
        return {
            "boot": self._boot,
            "seq": self._seq,
            "digest": self._digest,
            "seen": [vm.model_dump(mode="json") for vm in seen],
            "gone": gone,
        }
