"""The intent "look whether anything is left over": every host looks, and asks the others where it must.

The controller adds what only the whole fleet shows: a VM that runs on two hosts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import structlog

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Host, Registry
from sterna.domain.audit import ANSWER_S, AUDIT_S, REPAIR_S, Leftover, Safety, bad_message, runs_twice
from sterna.domain.errors import SternaError
from sterna.domain.hosts import VmSummary
from sterna.domain.model import GuestState, Observation, Value
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.kit.tasks import all_of
from sterna.ports.cloud import NovaReads
from sterna.rpc.dead_letters import DeadLetters

log = structlog.get_logger(__name__)

SILENCE_S = 15.0
"""An agent sends heartbeats while it is still searching."""
LISTING_S = 10.0
"""To list its VMs takes no agent longer, unless its libvirt hangs."""


class Findings(Value):
    """The result of one audit."""

    leftovers: tuple[Leftover, ...]
    silent: tuple[str, ...]
    """Hosts that could not be asked: what is there is not known, and what they would prove is not proven."""
    why: dict[str, str] = {}
    """Of each of these: why it could not be asked."""
    complete: bool = True
    """Every host that was meant answered, and that was at least one."""
    asked: int = 0
    """How many answered."""
    nova_hosts: tuple[str, ...] = ()
    """Those that a Nova manages as well (`[nova]`)."""
    nova_why: str = ""
    """Why that is not known; '' where it is, or there is no Nova."""

    @property
    def clean(self) -> bool:
        """Nothing is left over (any more), as far as could be seen."""
        return not any(f.safety is not Safety.WAITING and f.done != "done" for f in self.leftovers)


class AuditFleet:
    """One controller's audits."""

    def __init__(
        self, registry: Registry, calls: AgentCalls, dead_letters: DeadLetters, nova: NovaReads | None = None
    ) -> None:
        self._registry, self._calls, self._dead_letters, self._nova = registry, calls, dead_letters, nova

    async def audit(self, host: str | None = None, *, repair: bool = False) -> Findings:
        """Look at one host, or at all at once. They are repaired one after the other. Raises NotFound."""
        if host is not None:
            await self._registry.host(host)
        everyone = await self._registry.hosts()
        up = [h.name for h in everyone if h.up]
        bus = self._calls.bus_state()
        silent = {h.name: t.why if (t := h.not_usable(bus)) else "" for h in everyone if not h.up}
        meant = [h.name for h in everyone if host in (None, h.name)]
        found = [f for f in await self._twice(up) if host is None or host in f.host.split(", ")]
        asked = [name for name in up if host in (None, name)]
        if repair:
            answers = [await self._ask(name, up, silent, repair=True) for name in asked]
        else:
            answers = await all_of(self._ask(name, up, silent, repair=False) for name in asked)
        for name, answer in zip(asked, answers, strict=True):
            if isinstance(answer, str):
                silent[name] = answer
            else:
                found += answer
        found += self._not_handled(repair=repair) if host is None else []
        answered = [name for name in meant if name not in silent]
        managed, why = await self._managed([h for h in everyone if h.name in meant])
        return Findings(
            nova_hosts=managed,
            nova_why=why,
            leftovers=tuple(found),
            silent=tuple(sorted(silent)),
            why=silent,
            complete=bool(meant) and answered == meant,
            asked=len(answered),
        )

    async def _managed(self, hosts: Iterable[Host]) -> tuple[tuple[str, ...], str]:
        """Which of these a Nova manages as well; why that is not known."""
        if self._nova is None:
            return (), ""
        try:
            theirs = set(await self._nova.hosts())
        except SternaError as error:
            return (), error.message
        return tuple(h.name for h in hosts if theirs & {h.name, h.facts.network_host}), ""

    async def _ask(self, name: str, up: list[str], down: Iterable[str], *, repair: bool) -> list[Leftover] | str:
        """What that host found; why it could not be asked."""
        params = {"others": [o for o in up if o != name], "silent": sorted(down), "repair": repair}
        total_s = (REPAIR_S if repair else AUDIT_S) + ANSWER_S
        try:
            answer = await self._calls.call(name, "audit", params, silence_s=SILENCE_S, total_s=total_s)
            with reading(name, "audit"):
                return [Leftover.model_validate(raw) for raw in answer["leftovers"]]
        except SternaError as error:
            log.warning("a host cannot be audited", host=name, error=error.message)
            return error.message

    def _not_handled(self, *, repair: bool) -> list[Leftover]:
        """Messages that this controller could not read; with `repair` they are forgotten."""
        letters = self._dead_letters.kept
        if repair:
            self._dead_letters.forget([one.number for one in letters])
        return [bad_message(CONTROLLER_TOKEN, one).model_copy(update={"done": "done" * repair}) for one in letters]

    async def _twice(self, up: list[str]) -> list[Leftover]:
        answers = await all_of(self._list(name) for name in up)
        seen: defaultdict[str, dict[str, Observation]] = defaultdict(dict)
        names = {}
        for host, vms in zip(up, answers, strict=True):
            for vm in vms:
                names[vm.uuid] = vm.name
                seen[vm.uuid][host] = Observation(state=vm.state)
        return [f for uuid, where in seen.items() if (f := _running_twice(uuid, names[uuid], where)) is not None]

    async def _list(self, host: str) -> list[VmSummary]:
        try:
            answer = await self._calls.call(host, "list_vms", {}, silence_s=SILENCE_S, total_s=LISTING_S)
            with reading(host, "list_vms"):
                return [VmSummary.model_validate(v) for v in answer["vms"]]
        except SternaError:
            return []  # its own audit reports that it does not answer


def _running_twice(uuid: str, name: str, where: dict[str, Observation]) -> Leftover | None:
    judged = runs_twice(where)
    if judged is None:
        return None
    hosts = ", ".join(sorted(h for h, o in where.items() if o.state is GuestState.RUNNING))
    return Leftover(kind="runs-twice", host=hosts, subject=name, vm=uuid, why=judged.why, safety=judged.safety)
