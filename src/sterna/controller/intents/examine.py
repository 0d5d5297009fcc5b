"""The intent "is everything as it must be?": every host looks at itself and at some others; all is judged here.

A host looks at all others, or at the next MOST_EACH in the ring of their names. So a large fleet is examined with a
few looks for each host, and each host is looked at by as many as it looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog
from pydantic import Field

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.members import Members
from sterna.controller.records.registry import Host, Registry
from sterna.domain.doctor.findings import Finding, Level, worst
from sterna.domain.doctor.fleet import Skew, compare, skew_of
from sterna.domain.doctor.host import judge_host
from sterna.domain.doctor.looks import HostLook, Seen
from sterna.domain.doctor.pairs import judge_peer
from sterna.domain.errors import SternaError, Undelivered
from sterna.domain.model import Value
from sterna.kit.tasks import all_of
from sterna.ports.clock import Clock
from sterna.ports.cloud import NovaReads

log = structlog.get_logger(__name__)

SILENCE_S = 15.0
LOOK_S = 90.0
"""A host looks for a minute at most; it sends heartbeats meanwhile."""
MOST_EACH = 8
AT_ONCE = 128
"""Hosts that look at the same time, for all who ask this controller."""
ENOUGH_S = 100.0
"""For all hosts: a client waits for 120 s."""
CONTROLLER = "controller"
"""In the place of a host, for what is on the controller's own machine."""


_NO_HOST = Finding(
    check="agent",
    level=Level.WARNING,
    host=CONTROLLER,
    message="there is no host to check: all are dead or removed, or none has sent a heartbeat yet",
    fix="start the Sterna agent on a host, and check that it uses the same message bus; `sterna hosts` lists all",
)


async def _not_seen() -> str:
    """Where no server of the bus is beside."""
    return ""


class Diagnosis(Value):
    """What was found."""

    findings: tuple[Finding, ...]
    asked: int = Field(ge=0)
    """Hosts that have looked."""
    silent: dict[str, str] = {}
    """Hosts that have not, and why."""

    @property
    def level(self) -> Level:
        """The worst of all."""
        return worst(self.findings)


class Examine:
    """One controller's."""

    def __init__(
        self, registry: Registry, calls: AgentCalls, clock: Clock, members: Members, nova: NovaReads | None = None
    ) -> None:
        self._registry, self._calls, self._clock = registry, calls, clock
        self._members, self._nova = members, nova
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.bus_rights: Callable[[], Awaitable[str]] = _not_seen
        """The configuration of a nats-server on this controller's machine that lets clients answer under any name;
        '' for none. Set by `bootstrap`. Raises TimeoutError."""

    async def examine(self, names: Sequence[str] = ()) -> Diagnosis:
        """Of these hosts, all others left out; of all that are not gone, where none is named. Raises NotFound."""
        known = await (self._registry.named(names) if names else self._registry.hosts())
        hosts = [host for host in known if names or not host.gone]
        answering = [host for host in hosts if host.answers]
        until_ms = self._clock.monotonic_ms() + ENOUGH_S * 1000
        answers = await all_of(self._ask(host, _others(host, answering), until_ms) for host in answering)
        seen = {host.name: one for host, one in zip(answering, answers, strict=True) if isinstance(one, _Answer)}
        silent = {h.name: one for h, one in zip(answering, answers, strict=True) if isinstance(one, str)}
        silent |= {host.name: self._why(host) for host in hosts if not host.answers}
        findings = [self._not_asked(host, silent[host.name]) for host in hosts if host.name in silent]
        if not hosts:
            findings.append(_NO_HOST)
        for host in answering:
            if (answer := seen.get(host.name)) is not None:
                findings += self._judged(host, answer.seen)
        findings += compare(
            [answer.seen.look for answer in seen.values()],
            {name: answer.skew for name, answer in seen.items() if answer.skew is not None},
            {name: self._members.addresses(name) for name in seen},
        )
        findings += await self._own()
        return Diagnosis(findings=tuple(findings), asked=len(seen), silent=silent)

    async def _own(self) -> list[Finding]:
        """What is on this controller's machine."""
        try:
            own = HostLook(host=CONTROLLER, allow_responses=await self.bus_rights())
        except TimeoutError:
            return []
        return [finding for finding in judge_host(own) if finding.check == "bus-rights"]

    def _judged(self, host: Host, seen: Seen) -> list[Finding]:
        agent = Finding(check="agent", level=Level.OK, host=host.name, message="its agent answers")
        if host.trouble is not None:
            message = f"it cannot take part in migrations: {host.trouble.why}"
            agent = Finding(check="agent", level=Level.WRONG, host=host.name, message=message, fix=host.trouble.fix)
        lines = [agent, *judge_host(seen.look, knows_nova=self._nova is not None)]
        return lines + [line for peer in seen.peers for line in judge_peer(host.name, peer)]

    def _not_asked(self, host: Host, why: str) -> Finding:
        trouble = host.not_usable(self._calls.bus_state())
        fix = (
            trouble.fix
            if trouble is not None
            else f"see the log of the agent on {host.name}; upgrade it if it is older"
        )
        return Finding(check="agent", level=Level.WRONG, host=host.name, message=why, fix=fix)

    def _why(self, host: Host) -> str:
        trouble = host.not_usable(self._calls.bus_state())
        return trouble.why if trouble is not None else "its agent does not answer"

    async def _ask(self, host: Host, others: list[dict[str, str]], until_ms: float) -> _Answer | str:
        """What it saw; why it could not be asked."""
        async with self._turns:
            left_s = (until_ms - self._clock.monotonic_ms()) / 1000
            if left_s <= 0:
                return f"{ENOUGH_S:g} s were not enough to check it as well: check fewer hosts at once"
            began, params = self._clock.now(), {"peers": others}
            try:
                raw = await self._calls.call(
                    host.name, "examine", params, silence_s=SILENCE_S, total_s=min(LOOK_S, left_s)
                )
                ended = self._clock.now()
                with reading(host.name, "examine"):
                    seen = _own_word(Seen.model_validate(raw), host.name, {other["name"] for other in others})
                    return _Answer(seen=seen, skew=skew_of(seen.look.now, seen.look.took_s, began, ended))
            except Undelivered as error:
                return f"its agent does not answer: {error.message}"
            except SternaError as error:
                log.warning("a host cannot be examined", host=host.name, error=error.message)
                return f"it could not be checked: {error.message}"


class _Answer(Value):
    seen: Seen
    skew: Skew | None = None


def _own_word(seen: Seen, host: str, asked: Collection[str]) -> Seen:
    """What a host may say: of itself, under its own name, and of those that it was asked about."""
    look = seen.look.model_copy(update={"host": host})
    return Seen(look=look, peers=tuple(peer for peer in seen.peers if peer.peer in asked))


def _others(host: Host, hosts: Sequence[Host]) -> list[dict[str, str]]:
    """Those it looks at: the next ones in the ring of names."""
    ring = [other for other in hosts if other.facts.address or other.name == host.name]
    at = next((n for n, other in enumerate(ring) if other.name == host.name), 0)
    following = [*ring[at + 1 :], *ring[:at]][:MOST_EACH]
    return [{"name": other.name, "address": other.facts.address} for other in following if other.facts.address]
