"""Which VMs there are and where: kept in the records by the changes that agents tell, so that no host is asked.

An agent counts its changes. Its beacon says how far it has counted, and the digest of its list: a change that was
lost shows within a second, and the whole list is asked for, once. What is stored is compared with the digest now
and then, too. Agents that do not count (of an older version) are asked for their lists, as `inventory.py` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from itertools import islice

import structlog

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Registry
from sterna.domain import untrusted
from sterna.domain.errors import BadRequest, SternaError, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.domain.sightings import Mark, News
from sterna.domain.trust.bounds import Load, no_place_for_news
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, Taken

log = structlog.get_logger(__name__)

ASK_S = 5.0
"""A host that is silent for this long is asked again later."""
LONGEST_S = 10.0
"""So is one whose agent lives, while its libvirt hangs."""
ASK_AGAIN_S = 2.0
AT_ONCE = 32
"""Hosts that are asked at the same time."""
ENOUGH_S = 60.0
"""For all that are asked for somebody who waits: clients wait for 120 s."""
STORED_AT_ONCE = 64
"""Lists of hosts, in one transaction: others want to write, too."""
MARKS_EVERY_S = 60.0
"""The records may have been put back to an older state."""
ALL_DIGESTS_S = 600.0
"""What is stored of each host is compared with the digest of its own list this often."""


class Snapshot:
    """One controller's side of it."""

    def __init__(self, fleet: Fleet, registry: Registry, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._registry, self._calls, self._clock = fleet, registry, calls, clock
        self._told: dict[str, Mark] = {}
        """By each host's last beacon."""
        self._taken: dict[str, Mark] = {}
        """By the records, as far as this controller knows."""
        self._loaded_ms: float | None = None
        self._waiting: list[tuple[str, News]] = []
        """For the database. More are dropped, and asked for once it is back."""
        self._loads: dict[str, Load] = {}
        self._load = Load()
        """Of `_waiting`: each host's, and all of it."""
        self._queued: dict[str, Mark] = {}
        """The newest of `_waiting`, and of what is being stored, by host."""
        self._news = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._not_before_ms: dict[str, float] = {}
        self._doubtful: set[str] = set()
        self._asked_again: set[str] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._next_checked = ""

    # ------------------------------------------------------------ what agents say

    def counts(self, host: str) -> bool:
        """Does its agent count its changes?"""
        return host in self._told

    def any_counts(self) -> bool:
        """Does any?"""
        return bool(self._told)

    def heard(self, host: str, data: Data) -> None:
        """Take what a beacon of `host` says of its list."""
        raw = data.get("vms")
        if raw is None:
            self._told.pop(host, None)
            return
        try:
            mark = untrusted.mark(raw, data.get("boot"))
        except BadRequest as error:
            log.info("a beacon's count of changes cannot be read", host=host, why=error.message)
            return
        self._told[host] = mark
        if self._loaded_ms is not None and mark not in (self._taken.get(host), self._queued.get(host)):
            newest = self._queued.get(host)
            if newest is None or newest.boot != mark.boot or newest.seq < mark.seq:
                self._ask(host)

    async def changed(self, topic: str, data: Data) -> None:
        """Take a change (topic `vms.<host>`) of a host whose beacons are accepted. Raises BadRequest for one that
        cannot be read: its host is asked, as if it was lost."""
        host = topic.removeprefix("vms.")
        if self._registry.is_up(host):
            self._queue(host, untrusted.vm_news(data))

    def _queue(self, host: str, news: News) -> bool:
        """False where it is dropped."""
        own = self._loads.get(host, Load())
        if no_place_for_news(own, self._load):
            return False
        size = len(news.model_dump_json())
        self._loads[host], self._load = own.plus(size), self._load.plus(size)
        self._waiting.append((host, news))
        if news.mark is not None:
            self._queued[host] = news.mark
        self._news.set()
        return True

    # ------------------------------------------------------------ asking for the whole

    def _ask(self, host: str) -> None:
        if host not in self._asking and self._clock.monotonic_ms() >= self._not_before_ms.get(host, 0.0):
            self._not_before_ms[host] = self._clock.monotonic_ms() + ASK_AGAIN_S * 1000
            self._asking[host] = asyncio.create_task(self._ask_whole(host), name=f"vms-of-{host}")

    async def _ask_whole(self, host: str) -> None:
        try:
            async with self._places:
                again = host in self._doubtful
                if self._queue(host, await self.whole(host)) and again:
                    self._doubtful.discard(host)
                    self._asked_again.add(host)
        except SternaError as error:
            log.info("a host's VMs cannot be listed now", host=host, why=error.message)
        finally:
            del self._asking[host]

    async def whole(self, host: str) -> News:
        """The list of its VMs as its agent has it now. Raises what `AgentCalls.call` does."""
        answer = await self._calls.call(host, "list_vms", {}, silence_s=ASK_S, total_s=LONGEST_S)
        try:
            with reading(host, "list_vms"):
                return untrusted.vm_list(answer)
        except BadRequest as error:
            raise Unknown(f"the answer of {host} to list_vms cannot be read: {error.message}") from error

    # ------------------------------------------------------------ storing

    async def run(self) -> None:
        """Store what is received, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                with own_cancellation_only():
                    await self.store()
            except SternaError as error:
                log.info("changes of VMs are asked for again: they cannot be stored now", why=error.message)
            except Exception:
                log.exception("storing changes of VMs failed")

    async def store(self) -> None:
        """Store what has been told so far. Raises Unreachable: then it has to be asked for again."""
        told, self._waiting, self._loads, self._load = self._waiting, [], {}, Load()
        asked, self._asked_again = self._asked_again, set()
        try:
            taken, _ = await self._take(told, asked)
            self._learn(taken)
        finally:
            waiting = {host for host, _ in self._waiting}
            self._queued = {host: mark for host, mark in self._queued.items() if host in waiting}

    async def _take(
        self, told: Sequence[tuple[str, News]], asked: Collection[str]
    ) -> tuple[Taken, dict[str, SternaError]]:
        """Store it; what speaks against a host's news: a name that the database cannot hold. Raises Unreachable."""
        at = self._clock.now().isoformat()
        try:
            return await self._fleet.take_news(told, asked, at), {}
        except BadRequest:
            pass
        taken, failed = Taken(), dict[str, SternaError]()
        for one in told:
            try:
                more = await self._fleet.take_news([one], asked, at)
            except BadRequest as error:
                log.warning("a host's list of VMs cannot be kept", host=one[0], error=error.message)
                failed[one[0]] = error
            else:
                taken = Taken(
                    marks=taken.marks | more.marks,
                    gaps=taken.gaps | more.gaps,
                    doubtful=taken.doubtful | more.doubtful,
                )
        return taken, failed

    def _learn(self, taken: Taken) -> None:
        self._taken |= taken.marks
        self._doubtful |= taken.doubtful
        for host in taken.doubtful:
            self._not_before_ms.pop(host, None)
        for host in taken.gaps | taken.doubtful:
            self._ask(host)

    # ------------------------------------------------------------ is it true?

    async def check(self, every_s: float) -> None:
        """Compare what is stored with what hosts count: some of them, as this is called every `every_s`. Raises
        Unreachable."""
        now_ms = self._clock.monotonic_ms()
        if self._loaded_ms is None or now_ms - self._loaded_ms >= MARKS_EVERY_S * 1000:
            self._taken = await self._fleet.marks()
            self._loaded_ms = now_ms
        hosts = sorted(self._told)
        share = -(-len(hosts) * every_s // ALL_DIGESTS_S)
        behind = [host for host in hosts if host > self._next_checked] or hosts
        for host in islice(behind, int(share)):
            self._next_checked = host
            await self._compare(host)

    async def _compare(self, host: str) -> None:
        known = self._taken.get(host)
        if known is None or known != self._told.get(host) or host in self._queued:
            return  # news are on their way
        if await self._fleet.digest_in_records(host) != known.digest and known == self._taken.get(host):
            log.warning("what is stored of a host's VMs is not what it has told", host=host)
            self._not_before_ms.pop(host, None)
            self._ask(host)

    async def stop(self) -> None:
        """Ask nobody any more."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def ask_now(self, hosts: Collection[str]) -> dict[str, SternaError]:
        """Ask these hosts for their whole lists and store them; what went wrong, by host: there may not have been
        time for all. Raises Unreachable where they cannot be stored."""
        until_ms = self._clock.monotonic_ms() + ENOUGH_S * 1000
        failed, doubtful = await self._asked(hosts, (), until_ms)
        # one may have answered before a switch-over, and the other after it
        again = [host for host in doubtful if host not in failed]
        await self._asked(again, again, until_ms)
        return failed

    async def _asked(
        self, hosts: Collection[str], asked: Collection[str], until_ms: float
    ) -> tuple[dict[str, SternaError], set[str]]:
        """What went wrong, and the hosts that must be asked again. `asked`: those that are asked again now."""
        answers = dict(zip(hosts, await asyncio.gather(*(self._try(one, until_ms) for one in hosts)), strict=True))
        failed = {host: answer for host, answer in answers.items() if isinstance(answer, SternaError)}
        news, doubtful = [(host, one) for host, one in answers.items() if isinstance(one, News)], set[str]()
        for begin in range(0, len(news), STORED_AT_ONCE):
            some = news[begin : begin + STORED_AT_ONCE]
            taken, unkept = await self._take(some, [host for host, _ in some if host in asked])
            self._taken |= taken.marks
            failed |= unkept
            doubtful |= taken.doubtful
        return failed, doubtful

    async def _try(self, host: str, until_ms: float) -> News | SternaError:
        async with self._places:
            if self._clock.monotonic_ms() >= until_ms:
                why = f"it was not asked: others have taken {ENOUGH_S:g} s"
                return Unreachable(why, fix="find out which hosts do not answer, and try again")
            try:
                return await self.whole(host)
            except SternaError as error:
                log.info("a host does not list its VMs", host=host, error=error.message)
                return error
