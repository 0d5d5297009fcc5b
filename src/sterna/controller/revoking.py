"""Hands the newest list of revoked certificates to every host, where this controller has the CA.

A host's beacon says which list it has in use. So one that was down, or whose libvirtd did not take the list, gets
it as soon as it can: nothing has to be remembered here.
"""

from __future__ import annotations

import asyncio
import math

import structlog

from sterna.controller.calls import AgentCalls
from sterna.controller.records.members import Members
from sterna.controller.records.registry import UP_FOR_MS
from sterna.domain.errors import SternaError
from sterna.domain.trust.revocation import RevokedList, to_wire
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock

log = structlog.get_logger(__name__)

AGAIN_MS = 3_000.0
"""After a try. The beacons that come first may be older than its result."""
AT_ONCE = 200
"""Hosts that are handed a list at the same time. Each takes about a second."""
HANDING_S = 90.0
"""Longer than an agent tries."""


class Revoking:
    """Of one controller."""

    def __init__(self, members: Members, calls: AgentCalls, clock: Clock) -> None:
        self._members, self._calls, self._clock = members, calls, clock
        self._in_use: dict[str, tuple[int, float]] = {}
        """By each host's last beacon, and when that came."""
        self._handing: dict[str, asyncio.Task[None]] = {}
        self._not_before_ms: dict[str, float] = {}
        self._said: dict[str, str] = {}
        """What went wrong with a host last, which is logged once."""
        self._places = asyncio.Semaphore(AT_ONCE)

    def heard(self, host: str, number: object) -> None:
        """A beacon of this host has come: it uses the list with this number, 0 for none; None: it takes none."""
        if type(number) is not int or self._members.against(host) is not None:
            self._in_use.pop(host, None)
            return
        self._in_use[host] = number, self._clock.monotonic_ms()
        newest = self._members.revoked()
        if newest is None or number >= newest.number or host in self._handing:
            return
        if self._clock.monotonic_ms() >= self._not_before_ms.get(host, 0.0):
            self._handing[host] = asyncio.create_task(self._hand(host, newest), name=f"revoked-{host}")
            self._handing[host].add_done_callback(lambda _: self._handing.pop(host, None))

    def knows(self, host: str) -> bool | None:
        """Does this host refuse every certificate that is revoked? None where its agent does not say so, or is
        silent now: a host that is down may come back with an older disk."""
        newest, (number, at_ms) = self._members.revoked(), self._in_use.get(host, (0, -math.inf))
        if self._clock.monotonic_ms() - at_ms > UP_FOR_MS:
            return None
        return newest is None or number >= newest.number

    async def stop(self) -> None:
        """Hand over no more."""
        for task in (tasks := list(self._handing.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hand(self, host: str, newest: RevokedList) -> None:
        try:
            async with self._places:
                with own_cancellation_only():
                    await self._calls.call(host, "take_revoked", to_wire(newest), total_s=HANDING_S)
            self._said.pop(host, None)
        except SternaError as error:
            if self._said.get(host) != error.message:
                log.warning("a host has not taken the list of revoked certificates", host=host, why=error.message)
            self._said[host] = error.message
        except Exception:
            log.exception("handing over the list of revoked certificates failed", host=host)
        finally:
            self._not_before_ms[host] = self._clock.monotonic_ms() + AGAIN_MS
