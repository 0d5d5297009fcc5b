"""Which VMs there are and where, as the records have it.

libvirt is the truth, and agents tell what changes there (`snapshot.py`). Hosts whose agents do not (of an older
version) are asked at the moment of the question. What cannot be known now (its host is down, or did not answer) is
shown as last seen, with the state `unknown`.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from sterna.controller import reasons
from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Registry
from sterna.controller.records.snapshot import ASK_S, LONGEST_S, Snapshot
from sterna.domain.errors import Refused, SternaError
from sterna.domain.model import GuestState, Value, Vm
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, VmPage, VmRecord

log = structlog.get_logger(__name__)

LOOKS, LOOK_EVERY_S = 4, 0.4
"""For a VM that the records do not know: its agent tells of a new one within a second."""


class Listing(Value):
    """VMs as of now."""

    vms: tuple[VmRecord, ...]
    silent: tuple[str, ...] = ()
    """Hosts that are down or did not answer: their VMs are as last seen."""
    why: dict[str, str] = {}
    """Of each of these: why it could not be asked."""
    complete: bool = True
    """At least one host answered, and all did but those that an operator declared dead."""
    next: tuple[str, str] | None = None
    """Where the next page begins, behind this name and UUID; None where there is none."""


class Inventory:
    """Reads only."""

    def __init__(
        self, fleet: Fleet, registry: Registry, snapshot: Snapshot, calls: AgentCalls, clock: Clock
    ) -> None:
        self._fleet, self._registry, self._snapshot = fleet, registry, snapshot
        self._calls, self._clock = calls, clock

    async def vms(self) -> Listing:
        """All VMs, by name; one that runs on two hosts is listed twice."""
        listing = await self._away()
        records = await self._fleet.vms()
        return listing.model_copy(update={"vms": _shown(records, listing.silent)})

    async def page(self, page: VmPage) -> Listing:
        """Some of them; one that runs on two hosts is listed twice, as one."""
        listing = await self._away()
        asked = page.model_copy(update={"limit": page.limit + 1, "silent": listing.silent})
        records = await self._fleet.page_of_vms(asked)
        kept, more = records[: page.limit], len(records) > page.limit
        following = (kept[-1].name, kept[-1].uuid) if more else None
        return listing.model_copy(update={"vms": _shown(kept, listing.silent), "next": following})

    async def refresh(self) -> None:
        """Ask the hosts whose agents do not tell by themselves."""
        await self._away()

    async def _away(self) -> Listing:
        """Without VMs: which hosts are silent, and why. Those that do not tell by themselves have been asked."""
        away, up = await self._registry.away()
        failed = await self._snapshot.ask_now([name for name in up if not self._snapshot.counts(name)])
        bus = self._calls.bus_state()
        why = {host.name: t.why if (t := host.not_usable(bus)) is not None else "" for host in away}
        why |= {name: error.message for name, error in failed.items()}
        return Listing(
            vms=(),
            silent=tuple(sorted(why)),
            why=why,
            complete=len(up) > len(failed) and not failed and all(host.dead for host in away),
        )

    async def find(self, name_or_uuid: str) -> VmRecord:
        """The one VM of that UUID, else of that name.

        Raises VmMissing; Refused where the name is ambiguous, naming the UUIDs, or where the VM runs twice.
        """
        found = await self._fleet.vms_called(name_or_uuid)
        found = await self._fresh(name_or_uuid, found) if found else []
        silent: tuple[str, ...] = ()
        if not found:
            found, silent = await self._look_for(name_or_uuid)
        if not found:
            raise reasons.VmMissing([reasons.no_such_vm(name_or_uuid, silent)])
        if len(found) > 1:
            raise Refused([reasons.ambiguous(name_or_uuid, {v.uuid for v in found})])
        if found[0].also:
            raise Refused([reasons.runs_twice(found[0].name, [found[0].host, *found[0].also])])
        return found[0] if self._registry.is_up(found[0].host) else _unknown(found[0])

    async def _fresh(self, name_or_uuid: str, found: list[VmRecord]) -> list[VmRecord]:
        """Once more, after the hosts that they are on were asked, where these do not tell by themselves."""
        hosts = {host for vm in found for host in (vm.host, *vm.also)}
        ask = [h for h in sorted(hosts) if self._registry.is_up(h) and not self._snapshot.counts(h)]
        if not ask:
            return found
        failed = await self._snapshot.ask_now(ask)
        again = await self._fleet.vms_called(name_or_uuid)
        return [_unknown(vm) if vm.host in failed else vm for vm in again]

    async def _look_for(self, name_or_uuid: str) -> tuple[list[VmRecord], tuple[str, ...]]:
        """One that the records do not know (yet), and the hosts that could not be asked."""
        listing = await self._away()
        found = await self._fleet.vms_called(name_or_uuid)
        for _ in range(LOOKS if self._snapshot.any_counts() else 0):
            if found:
                break
            await self._clock.sleep(LOOK_EVERY_S)
            found = await self._fleet.vms_called(name_or_uuid)
        return found, listing.silent

    async def show(self, name_or_uuid: str) -> tuple[VmRecord, Vm | None]:
        """One VM and its details; None where its host cannot be asked now. Raises as `find`."""
        found = await self.find(name_or_uuid)
        details = await self.details(found)
        if details is None:
            return found, None
        now = self._clock.now().isoformat()
        return found.model_copy(update={"state": details.state, "observed_at": now}), details

    async def details(self, vm: VmRecord) -> Vm | None:
        """What its host's libvirt has of it; None where that cannot be asked now."""
        if not self._registry.is_up(vm.host):
            return None
        try:
            answer = await self._calls.call(vm.host, "show_vm", {"vm": vm.uuid}, silence_s=ASK_S, total_s=LONGEST_S)
            with reading(vm.host, "show_vm"):
                return Vm.model_validate(answer["vm"])
        except SternaError as e:
            log.info("no details of a VM", vm=vm.uuid, host=vm.host, error=e.message)
            return None


def _unknown(vm: VmRecord) -> VmRecord:
    return vm.model_copy(update={"state": GuestState.UNKNOWN})


def _shown(records: Collection[VmRecord], silent: Collection[str]) -> tuple[VmRecord, ...]:
    """As last seen where the host is silent; one that runs on two hosts, twice."""
    away = set(silent)
    known = [_unknown(vm) if vm.host in away else vm for vm in records]
    twice = (vm.model_copy(update={"host": host}) for vm in known for host in (vm.host, *vm.also))
    return tuple(sorted(twice, key=lambda vm: (vm.name, vm.uuid, vm.host)))
