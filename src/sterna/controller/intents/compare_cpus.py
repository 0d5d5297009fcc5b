"""The intent "which CPUs do the hosts have?": hosts are grouped by what their beacons say, and one of each group is
asked what its CPU is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Host, Registry
from sterna.domain.cpus import CpuComparison, HostCpu, compare, described
from sterna.domain.errors import BadRequest, SternaError
from sterna.kit.digests import digest_of
from sterna.kit.tasks import all_of

log = structlog.get_logger(__name__)

MOST_ASKED = 3
"""Hosts of a group that are asked, one after another, until one has answered."""
MOST_GROUPS = 256
"""Groups that are compared, the largest first. A healthy fleet has a few."""
AT_ONCE = 16
SILENCE_S, TOTAL_S = 3.0, 10.0
_NOT_SAID = "its agent is of an earlier version, or its libvirt cannot describe its CPU"
_TOO_MANY = f"the hosts have more than {MOST_GROUPS} different CPUs"


class CompareCpus:
    """One controller's. It remembers what each CPU is: that never changes."""

    def __init__(self, registry: Registry, calls: AgentCalls) -> None:
        self._registry, self._calls = registry, calls
        self._known: dict[str, HostCpu] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def compare(self) -> CpuComparison:
        """Of all hosts that are not gone; those that are down by their last beacon."""
        groups: dict[str, list[Host]] = {}
        for host in await self._registry.hosts():
            if not host.gone:
                groups.setdefault(host.facts.cpu_id, []).append(host)
        unknown = dict.fromkeys((host.name for host in groups.pop("", [])), _NOT_SAID)
        largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        for _, hosts in largest[MOST_GROUPS:]:
            unknown |= dict.fromkeys((host.name for host in hosts), _TOO_MANY)
        taken = largest[:MOST_GROUPS]
        self._known = {id: self._known[id] for id, _ in taken if id in self._known}
        answers = await all_of(self._cpu(id, hosts) for id, hosts in taken)
        known = []
        for (_, hosts), answer in zip(taken, answers, strict=True):
            names = [host.name for host in hosts]
            if isinstance(answer, HostCpu):
                known.append((answer, names))
            else:
                unknown |= dict.fromkeys(names, answer)
        return compare(known, unknown)

    async def _cpu(self, id: str, hosts: Sequence[Host]) -> HostCpu | str:
        """What it is; why that is not known. A host that says something else than its beacons is not believed."""
        if id in self._known:
            return self._known[id]
        why = "no host with this CPU answers"
        for host in [host for host in hosts if host.answers][:MOST_ASKED]:
            try:
                async with self._turns:
                    cpu = await self._asked(host.name)
            except SternaError as error:
                why = f"{host.name} did not describe its CPU: {error.message}"
                continue
            if digest_of(cpu.text) == id:
                self._known[id] = cpu
                return cpu
            why = f"{host.name} describes another CPU than its heartbeats: ask again in a moment"
        log.warning("a CPU is not known", cpu=id, why=why)
        return why

    async def _asked(self, name: str) -> HostCpu:
        raw = await self._calls.call(name, "describe_host", {}, silence_s=SILENCE_S, total_s=TOTAL_S)
        with reading(name, "describe_host"):
            if raw.get("cpu") is None:
                raise BadRequest("it has no description of its CPU")
            return described(raw["cpu"])
