"""Which VMs there are and where: asked of every host that is up, at the moment of the question.

libvirt is the truth. What cannot be asked now (its host is down, or did not answer) is shown as last seen, with
the state `unknown`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping

import structlog

from sterna.controller import reasons
from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Host, Registry
from sterna.domain.errors import BadRequest, Refused, SternaError
from sterna.domain.hosts import VmSummary
from sterna.domain.model import GuestState, Value, Vm
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, VmRecord

log = structlog.get_logger(__name__)

ASK_S = 5.0
"""How long one silent host may hold up the list, in seconds."""
LONGEST_S = 10.0
"""How long a host may take whose agent answers, while its libvirt hangs."""


class Listing(Value):
    """All VMs as of now."""

    vms: tuple[VmRecord, ...]
    silent: tuple[str, ...] = ()
    """Hosts that are down or did not answer: their VMs are as last seen."""
    why: dict[str, str] = {}
    """Of each of these: why it could not be asked."""
    complete: bool = True
    """At least one host was asked, and all answered but those that an operator declared dead."""


class Inventory:
    """Reads only; what it sees is remembered for the time when a host is down."""

    def __init__(self, fleet: Fleet, registry: Registry, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._registry, self._calls, self._clock = fleet, registry, calls, clock

    async def vms(self) -> Listing:
        """All VMs, by name; one that runs on two hosts is listed twice."""
        hosts = await self._registry.hosts()
        asked = [h.name for h in hosts if h.up]
        answers = await self._ask_all(asked)
        # One host may have answered before a switch-over and the other after it: both are asked again.
        again = await self._ask_all(_hosts_of_duplicates(answers))
        answers |= {name: answer for name, answer in again.items() if not isinstance(answer, SternaError)}
        now = self._clock.now().isoformat()
        kept = await asyncio.gather(*(self._remembered(name, answer, now) for name, answer in answers.items()))
        answers = dict(zip(answers, kept, strict=True))
        heard = {name: answer for name, answer in answers.items() if not isinstance(answer, SternaError)}
        records = await self._fleet.vms()
        silent = [h for h in hosts if h.name not in heard]
        listed = _listed(records, heard, now)
        return Listing(
            vms=tuple(sorted(listed, key=lambda v: (v.name, v.uuid, v.host))),
            silent=tuple(h.name for h in silent),
            why={h.name: self._why(h, answers.get(h.name)) for h in silent},
            complete=bool(heard) and all(h.dead for h in silent),
        )

    async def _ask_all(self, hosts: Collection[str]) -> dict[str, list[VmSummary] | SternaError]:
        return dict(zip(hosts, await asyncio.gather(*(self._ask(name) for name in hosts)), strict=True))

    async def _remembered(
        self, host: str, answer: list[VmSummary] | SternaError, now: str
    ) -> list[VmSummary] | SternaError:
        """The answer, or what the records have against it. Raises Unreachable without a database."""
        if isinstance(answer, SternaError):
            return answer
        try:
            await self._fleet.saw_vms(host, answer, now)
        except BadRequest as e:  # a name that the database cannot hold
            log.warning("a host's list of VMs cannot be kept", host=host, error=e.message)
            return e
        return answer

    def _why(self, host: Host, answer: list[VmSummary] | SternaError | None) -> str:
        if isinstance(answer, SternaError):
            return answer.message
        trouble = host.not_usable(self._calls.bus_state())
        return trouble.why if trouble is not None else ""

    async def find(self, name_or_uuid: str) -> VmRecord:
        """The one VM of that UUID, else of that name.

        Raises VmMissing; Refused where the name is ambiguous, naming the UUIDs, or where the VM runs twice.
        """
        listing = await self.vms()
        found = [v for v in listing.vms if v.uuid == name_or_uuid.lower()]
        found = found or [v for v in listing.vms if v.name == name_or_uuid]
        if not found:
            raise reasons.VmMissing([reasons.no_such_vm(name_or_uuid, listing.silent)])
        uuids = {v.uuid for v in found}
        if len(uuids) > 1:
            raise Refused([reasons.ambiguous(name_or_uuid, uuids)])
        if len(found) > 1:
            raise Refused([reasons.runs_twice(found[0].name, [v.host for v in found])])
        return found[0]

    async def show(self, name_or_uuid: str) -> tuple[VmRecord, Vm | None]:
        """One VM and its details; None where its host cannot be asked now. Raises as `find`."""
        found = await self.find(name_or_uuid)
        return found, await self.details(found)

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

    async def _ask(self, host: str) -> list[VmSummary] | SternaError:
        try:
            answer = await self._calls.call(host, "list_vms", {}, silence_s=ASK_S, total_s=LONGEST_S)
            with reading(host, "list_vms"):
                return [VmSummary.model_validate(v) for v in answer["vms"]]
        except SternaError as e:
            log.info("a host does not list its VMs", host=host, error=e.message)
            return e


def _hosts_of_duplicates(answers: Mapping[str, list[VmSummary] | SternaError]) -> list[str]:
    """The hosts that run a VM which another host runs as well."""
    hosts: defaultdict[str, list[str]] = defaultdict(list)
    for name, answer in answers.items():
        for vm in answer if not isinstance(answer, SternaError) else ():
            if vm.state is GuestState.RUNNING:
                hosts[vm.uuid].append(name)
    return sorted({name for names in hosts.values() if len(names) > 1 for name in names})


def _listed(records: list[VmRecord], heard: dict[str, list[VmSummary]], now: str) -> list[VmRecord]:
    """Where each VM is seen now, else where it was seen last."""
    live: defaultdict[str, list[VmRecord]] = defaultdict(list)
    known = {r.uuid: r for r in records}
    for host, summaries in heard.items():
        for s in summaries:
            holder = known[s.uuid].migration_id if s.uuid in known else None
            live[s.uuid].append(VmRecord(**s.model_dump(), host=host, observed_at=now, migration_id=holder))
    listed = []
    for uuid in known.keys() | live.keys():
        seen = live.get(uuid, [])
        running = [v for v in seen if v.state is GuestState.RUNNING]
        if running:
            listed += running
        elif seen:
            at_home = [v for v in seen if uuid in known and v.host == known[uuid].host]
            listed.append((at_home or seen)[0])
        else:
            listed.append(known[uuid].model_copy(update={"state": GuestState.UNKNOWN}))
    return listed
