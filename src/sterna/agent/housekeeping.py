"""What an agent clears up by itself: taps of guests that ended, and old entries of its journal.

libvirt removes a guest's taps and their ports on Open vSwitch when the guest ends. What it does not know stays:
bridge and veth of a hybrid plug, and whatever a crash left of a port that was made ahead.

Once the migration is over, these are removed here if the guest has no QEMU on this host any more. Otherwise a guest
that is shut down and started again would be on the bridge twice. Made by `daemon.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sterna.domain.entries.notes import WroteOffPeer
from sterna.domain.errors import SternaError
from sterna.domain.model import GuestState, Nic, Observation
from sterna.domain.plugs import plug_type, tap_name
from sterna.domain.whereabouts import GONE, SAVED
from sterna.kit.tasks import own_cancellation_only
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal

log = structlog.get_logger(__name__)

PRUNE_EVERY_S = 300.0
EVERY_S = 3.0
"""A guest may be restarted immediately, so a stale tap is tolerated for two sweeps."""
_SWEEP, _PRUNE = "taps", "journal"
_CHORES = (_SWEEP, _PRUNE)
BOOTED = "booted"
"""libvirt's reason for a guest that was started here, not brought: the taps it uses are libvirt's own."""


class Housekeeping:
    """One host's leftover taps and old entries."""

    def __init__(self, host: HostPorts, journal: Journal, read_to: Callable[[], int]) -> None:
        """`read_to`: up to which position the controller has read the journal."""
        self._host, self._journal, self._read_to = host, journal, read_to
        self._suspects: set[str] = set()
        self._logged: dict[str, str] = {}
        """What could not be done at the last sweep, and why: logged once, not every EVERY_S seconds."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look every EVERY_S seconds."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> list[str]:
        """Take away the taps seen without their guest at this look and the one before; their names.

        VMs in an open migration on this host are left alone: their taps are that migration's. What cannot be looked
        at or removed is logged, and hides nothing else. Raises Unreachable.
        """
        moving = {migration.vm_uuid for migration, _ in self._journal.open()}
        removed, suspects, troubled = [], set(), set()
        for nic in await self._host.vif.made_ahead():
            device, vm = nic.device or tap_name(nic), nic.external_ids.get("vm-uuid", "")
            if not vm or vm in moving:
                continue
            try:
                with own_cancellation_only():
                    seen = await self._host.hypervisor.observe(vm)
                    if not await self._is_over(nic, vm, seen):
                        continue
                    if device in self._suspects:
                        await self._remove(nic, for_good=seen.state is GuestState.ABSENT)
                        removed.append(device)
                    else:
                        suspects.add(device)
            except Exception as error:
                troubled.add(device)
                if device in self._suspects:
                    suspects.add(device)
                self._log_failure(device, error)
        self._suspects = suspects
        self._logged = {what: why for what, why in self._logged.items() if what in troubled or what in _CHORES}
        return removed

    async def _is_over(self, nic: Nic, vm: str, seen: Observation) -> bool:
        """Does the guest use nothing of what was made ahead of it?"""
        startable = seen.state is GuestState.SHUTOFF
        if startable and (nic.device is None or seen.reason == SAVED):
            return False
        return seen.state in GONE or await self._is_stale(nic, vm, seen)

    async def _is_stale(self, nic: Nic, vm: str, seen: Observation) -> bool:
        """Did the guest end and start again since the port was made, between two sweeps, and does it use another
        port now? A second port of one id confuses network agents. A hybrid plug has one port, whatever taps hang on
        its bridge. After a reboot of its host the guest may well use the same port again."""
        if seen.state is not GuestState.RUNNING or seen.reason != BOOTED or plug_type(nic).keeps_bridge:
            return False
        return nic.device not in {used.device for used in (await self._host.hypervisor.vm(vm)).nics}

    def prune(self) -> int:
        """Forget migrations that ended long ago and that the controller has read; how many. See `ports.records`."""
        forgotten = self._journal.prune(self._read_to(), spare=WroteOffPeer.entry)
        if forgotten:
            log.info("forgot old migrations", count=forgotten)
        return forgotten

    async def _remove(self, nic: Nic, *, for_good: bool) -> None:
        await self._host.vif.unplug(nic, for_good=for_good)
        log.info("removed the tap of a guest that ended", device=nic.device, vm=nic.external_ids.get("vm-uuid"))

    async def _run(self) -> None:
        pruned_ms = self._host.clock.monotonic_ms()
        while True:
            await self._host.clock.sleep(EVERY_S)
            try:
                with own_cancellation_only():
                    await self.sweep()
                self._logged.pop(_SWEEP, None)
            except Exception as error:
                self._log_failure(_SWEEP, error)
            if self._host.clock.monotonic_ms() - pruned_ms < PRUNE_EVERY_S * 1000:
                continue
            pruned_ms = self._host.clock.monotonic_ms()
            try:
                self.prune()
                self._logged.pop(_PRUNE, None)
            except Exception as error:
                self._log_failure(_PRUNE, error)

    def _log_failure(self, what: str, error: Exception) -> None:
        """Log an error, unless the last look failed in the same way."""
        if self._logged.get(what) != str(error):
            self._logged[what] = str(error)
            bug = not isinstance(error, SternaError)
            log.warning("housekeeping failed and will be retried", of=what, why=str(error), exc_info=bug)
