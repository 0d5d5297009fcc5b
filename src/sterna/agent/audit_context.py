"""What the finders of leftovers work with: the host, its journal, the other hosts; and what they return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sterna.agent.tokens import CheckTokens
from sterna.domain import untrusted
from sterna.domain.audit import (
    Elsewhere,
    Leftover,
    Safety,
)
from sterna.domain.calls import ObserveGuest, SeesToken
from sterna.domain.errors import SternaError
from sterna.domain.model import GuestState, Observation
from sterna.domain.trust.dead_letters import DeadLetter
from sterna.kit.tasks import all_of
from sterna.kit.waiting import within
from sterna.migration.context import HostPorts
from sterna.migration.sharing import silent_on
from sterna.ports.records import Envelope, Journal
from sterna.rpc.client import RpcClient

ASK_S = 5.0
"""How long one silent host may hold up the question, in seconds."""
LOOK_S = 15.0
"""How long a host that answers may take: its libvirt or a file system may hang."""
AT_ONCE = 8
"""Things that are looked at side by side: where one hangs, others are not."""
Act = Callable[[], Awaitable[object]]
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A leftover, and what removes it."""

    leftover: Leftover
    act: Act | None = None


@dataclass(frozen=True)
class Messages:
    """Messages that cannot be handled, since this agent was started."""

    refused: Mapping[str, str] = field(default_factory=dict)
    """On their way out, by id, and why their receiver does not take them."""
    aside: Mapping[str, str] = field(default_factory=dict)
    """In the inbox, by `rpc.server.key_of`, and why they are not tried again."""
    forget: Callable[[Envelope], None] = lambda envelope: None
    """Remove it from the inbox: no open migration needs it."""
    dead: Callable[[], Sequence[DeadLetter]] = lambda: ()
    bury: Callable[[Collection[int]], None] = lambda numbers: None
    """Dead letters, by their numbers: an operator has seen them."""


@dataclass(frozen=True)
class AuditContext:
    """One host, its journal, and the other hosts it can ask."""

    host: HostPorts
    journal: Journal
    client: RpcClient
    tokens: CheckTokens
    others: tuple[str, ...]
    silent: tuple[str, ...]
    """Hosts known to be down: not asked."""
    until_ms: float
    """When this audit is to be over, on the host's clock."""
    messages: Messages = field(default_factory=Messages)
    """Those that cannot be handled, or are not tried again for now."""

    @property
    def moving(self) -> set[str]:
        """VMs in an open migration here: what they have is that migration's. Read it after the world."""
        return {migration.vm_uuid for migration, _ in self.journal.open()}

    @property
    def left_s(self) -> float:
        """What is left of its time."""
        return max(0.0, (self.until_ms - self.host.clock.monotonic_ms()) / 1000)

    def shortly(self, seconds: float) -> AuditContext:
        """The same, with so much time at most."""
        return replace(self, until_ms=min(self.until_ms, self.host.clock.monotonic_ms() + seconds * 1000))

    async def elsewhere(self, vm: str) -> Elsewhere:
        """What all other hosts say of that guest, now."""
        answers = await asyncio.gather(*(self._ask(name, vm) for name in self.others))
        answered = zip(self.others, answers, strict=True)
        seen = {n: o for n, o in answered if o is not None and o.state is not GuestState.UNKNOWN}
        return Elsewhere(seen, tuple(sorted({*self.silent, *(set(self.others) - set(seen))})))

    async def sees(self, host: str, path: str, token: str) -> bool:
        """Does that host see the token? Raises Unreachable or Unknown; StorageSilent, with the host."""
        asked = SeesToken(path=path, token=token)
        with silent_on(host):
            reply = await self.client.call(host, asked.method, asked.to_wire(), silence_s=ASK_S, total_s=LOOK_S)
        return untrusted.reply(asked, reply).seen

    def leftover(self, kind: str, subject: str, why: str, safety: Safety, **more: str) -> Leftover:
        """One of this host's."""
        return Leftover(kind=kind, host=self.host.name, subject=subject, why=why, safety=safety, **more)

    def not_looked_at(self, kind: str, subject: str, why: str) -> Leftover:
        """Something here that may be a leftover, which cannot be decided now."""
        return self.leftover("not-looked-at", subject, f"{kind} were not searched: {why}", Safety.CANNOT_TELL)

    async def _ask(self, host: str, vm: str) -> Observation | None:
        asked = ObserveGuest(vm=vm)
        try:
            reply = await self.client.call(host, asked.method, asked.to_wire(), silence_s=ASK_S, total_s=LOOK_S)
            return untrusted.reply(asked, reply).observation
        except SternaError:
            return None


Finder = Callable[[AuditContext], Coroutine[Any, Any, list[Found]]]
Look = Callable[[AuditContext, T], Coroutine[Any, Any, list[Found]]]


async def each(
    audit: AuditContext, kind: str, things: Iterable[T], subject: Callable[[T], str], look: Look[T]
) -> list[Found]:
    """`look` at each of them, several at once. One that cannot be examined in time is reported, and hides no
    other."""
    room = asyncio.Semaphore(AT_ONCE)

    async def at(thing: T) -> list[Found]:
        try:
            async with room:
                return await within(audit.host.clock, audit.left_s, look(audit, thing))
        except TimeoutError:
            why = "no answer during this audit"
        except SternaError as error:
            why = error.message
        return [Found(audit.not_looked_at(kind, subject(thing), why))]

    return [one for found in await all_of(at(thing) for thing in things) for one in found]


def later(do: Callable[..., Awaitable[object]], *args: object, **named: object) -> Act:
    """The call, made when the leftover is removed."""
    return lambda: do(*args, **named)
