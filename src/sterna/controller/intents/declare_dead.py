"""The intent "this host is permanently gone, and it is fenced": the agents end what they share with it (ADR 7).

The agents decide what that means for each migration. This file asks them, notifies them, and notifies those that
are down when they are back. It ends in the records what no remaining journal can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import structlog

from sterna.controller.calls import AgentCalls, reading
from sterna.controller.records.registry import Host, Registry
from sterna.controller.records.under_way import under_way
from sterna.domain.errors import NotFound, Refused, SternaError, Undelivered, Unknown
from sterna.domain.model import Data, Refusal, Value
from sterna.domain.status import Status
from sterna.kit.tasks import all_of
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

T = TypeVar("T")

log = structlog.get_logger(__name__)

SIGN_OF_LIFE_S = 2.0
ASK_S = 15.0
"""An agent asks its libvirt and the host in question before it answers."""
LONGEST_S = 25.0
"""An agent whose libvirt hangs goes on sending heartbeats. Four such calls in a row fit into the user's wait (120
s)."""
ENOUGH_S = 15.0
"""After so long a destination is asked about no further migration in this turn. With the two calls about the last
one, and with those before, a user waits less than 120 s."""


class Planned(Value):
    """What one agent will do about one migration."""

    id: str
    vm: str
    host: str
    """Whose agent does it."""
    role: str
    """Which half that is."""
    will: str


class Death(Value):
    """What declaring a host dead means now."""

    host: str
    migrations: tuple[Planned, ...]
    silent: tuple[str, ...]
    """Hosts that could not be asked or notified: they are notified when they are back."""


class _Silent(Exception):
    """The destination gives no answer now: it is asked again."""


class DeclareDead:
    """One controller's side of it."""

    def __init__(self, fleet: Fleet, registry: Registry, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._registry, self._calls, self._clock = fleet, registry, calls, clock
        self._reported: set[tuple[str, str, str, str]] = set()
        """(dead host, since when, agent, its boot): that agent has the declaration in its journal."""
        self._last_asked: dict[tuple[str, str], int] = {}
        """By dead host and destination: the number of the migration that the last turn came to."""

    async def plan(self, name: str) -> Death:
        """What would be done. Changes nothing. Raises NotFound."""
        return (await self._ask((await self._registry.host(name)).name))[0]

    async def declare(self, name: str, *, fenced: bool) -> Death:
        """Do it. May be repeated. Raises NotFound; Refused where fencing is not confirmed, or the host answers."""
        host = await self._registry.host(name)
        death, answers = await self._ask(name)
        found = [] if fenced else [_unconfirmed(name)]
        if host.up or answers or await self._answers(name):
            found.append(_answers(name))
        if found:
            raise Refused(found)
        host = await self._registry.set_dead(name, host.dead_at or self._clock.now().isoformat())
        silent = await self._notify(host)
        await self._end_orphans(host)
        return death.model_copy(update={"silent": tuple(sorted({*death.silent, *silent}))})

    async def take_back(self, name: str) -> Host:
        """It is not dead, or is back: nothing more is done on the declaration. Raises NotFound."""
        await self._registry.host(name)
        host = await self._registry.set_dead(name, "")
        up = [other.name for other in await self._others(name) if other.up]
        received = await all_of(self._call(other, "declare_alive", {"host": name}, _as_it_is) for other in up)
        for other, answer in zip(up, received, strict=True):
            if answer is None:
                log.warning("an agent could not be notified that a host is alive", host=other, alive=name)
        return host

    async def notify_again(self) -> None:
        """Notify agents that were down, or have lost their journal, about hosts that are still dead."""
        await all_of(self._try_to_notify(host) for host in (await self._registry.away())[0] if host.dead)

    async def _try_to_notify(self, dead: Host) -> None:
        """Each by itself: one that fails keeps no other from its end."""
        try:
            await self._notify(dead)
            await self._end_orphans(dead)
        except SternaError as error:
            log.info("cleaning up after a dead host will be retried", host=dead.name, error=error.message)
        except Exception:
            log.exception("cleaning up after a dead host failed unexpectedly", host=dead.name)

    # ------------------------------------------------------------ the agents

    async def _others(self, name: str) -> list[Host]:
        return [h for h in await self._registry.hosts() if h.name != name and not h.dead]

    async def _ask(self, name: str) -> tuple[Death, bool]:
        others = await self._others(name)
        asked = [h.name for h in others if h.up]
        answers = await all_of(self._planned(h, name) for h in asked)
        received = {h: a for h, a in zip(asked, answers, strict=True) if a is not None}
        planned = [one for found, _ in received.values() for one in found]
        silent = tuple(h.name for h in others if h.name not in received)
        death = Death(host=name, migrations=tuple(planned), silent=silent)
        return death, any(host_answers for _, host_answers in received.values())

    async def _planned(self, host: str, dead: str) -> tuple[list[Planned], bool] | None:
        """What this host's agent would do, and whether the other one answers it."""

        def read(answer: Data) -> tuple[list[Planned], bool]:
            return [Planned(host=host, **m) for m in answer["migrations"]], bool(answer["answers"])

        return await self._call(host, "fencing_plan", {"host": dead}, read)

    async def _notify(self, dead: Host) -> list[str]:
        """Notify every agent that has not been notified yet. Returns those that could not be reached."""
        others = await self._others(dead.name)
        reached = await all_of(self._notify_one(dead, other) for other in others)
        return [other.name for other, has_it in zip(others, reached, strict=True) if not has_it]

    async def _notify_one(self, dead: Host, other: Host) -> bool:
        """Notify that agent, if it is not yet. Returns whether it is now."""
        key = (dead.name, dead.dead_at, other.name, other.boot)
        params = {"host": dead.name, "at": dead.dead_at}
        if key in self._reported:
            return True
        if not other.up or await self._call(other.name, "declare_dead", params, _as_it_is) is None:
            return False
        self._reported.add(key)
        return True

    async def _call(
        self,
        host: str,
        method: str,
        params: Data,
        read: Callable[[Data], T],
        record: MigrationRecord | None = None,
    ) -> T | None:
        """What `read` finds in the agent's answer, about one migration if one is given; None without any."""
        about: Data = {}
        if record is not None:
            params = params | {"migration": record.migration.model_dump(mode="json")}
            about = {"migration_id": record.id, "epoch": record.migration.epoch}
        try:
            answer = await self._calls.call(host, method, params, silence_s=ASK_S, total_s=LONGEST_S, **about)
            with reading(host, method):
                return read(answer)
        except SternaError as error:
            log.warning("an agent did not answer about a dead host", host=host, method=method, error=error.message)
            return None

    async def _answers(self, name: str) -> bool:
        try:
            await self._calls.call(name, "ping", {}, silence_s=SIGN_OF_LIFE_S, total_s=ASK_S)
        except (Undelivered, Unknown):
            return False
        except SternaError:
            return True  # it answered, if only with an error
        return True

    # ------------------------------------------------------------ records that no living journal can end

    async def _end_orphans(self, dead: Host) -> None:
        orphans: defaultdict[str, list[MigrationRecord]] = defaultdict(list)
        for record in await under_way(self._fleet, holding=False):  # its source may have released the VM
            if record.migration.source == dead.name:
                orphans[record.migration.destination].append(record)
        await all_of(self._end_each(records, dead.name) for records in orphans.values())

    async def _end_each(self, records: list[MigrationRecord], dead: str) -> None:
        """Those that went to one host, one after the other: it is asked no more in this turn once it is silent, or
        has taken long. The next turn begins behind the last one, which perhaps can never be ended."""
        began_ms, key = self._clock.monotonic_ms(), (dead, records[0].migration.destination)
        for record in _behind(records, self._last_asked.get(key, 0)):
            self._last_asked[key] = record.number
            try:
                await self._end_orphan(record, dead)
            except _Silent:
                return
            if self._clock.monotonic_ms() - began_ms > ENOUGH_S * 1000:
                return
        self._last_asked.pop(key, None)

    async def _end_orphan(self, record: MigrationRecord, dead: str) -> None:
        destination = record.migration.destination
        ending = "unknown"
        try:
            other = await self._registry.host(destination)
        except NotFound:
            return
        if not other.dead:
            reply = await self._call(destination, "migration_ending", {}, lambda a: str(a["ending"]), record)
            if reply is None:
                raise _Silent
            ending = reply
        if ending == "unknown" and record.accepted and not other.dead:
            # should the source come back, it must not go on with what the records call failed
            refused = await self._call(destination, "refuse_migration", {}, lambda a: bool(a["refused"]), record)
            if refused is None:
                raise _Silent
            ending = "unknown" if refused else "open"
        if ending == "open":
            return  # its own journal will say how it ends, or it is asked again
        done = ending == "F9"
        where = f"the guest is on {destination}" if done else f"the guest was on {dead} then"
        if other.dead:
            where = f"{destination} was as well: where the guest was is not known"
        status = Status.COMPLETED if done else Status.FAILED
        reason = f"{dead} was declared dead; {where}"
        await self._fleet.write_off(record.id, status, reason, self._clock.now().isoformat())


def _behind(records: list[MigrationRecord], last: int) -> list[MigrationRecord]:
    """All of them, the newest first, beginning behind that number. 0: with the newest."""
    return sorted(records, key=lambda record: (record.number >= last > 0, -record.number))


def _as_it_is(answer: Data) -> Data:
    return answer


def _unconfirmed(name: str) -> Refusal:
    message = f"it is not confirmed that {name} is fenced: a guest that still runs there could then run twice"
    fix = f'power {name} off, make sure that it stays off, then confirm with --fenced ({{"fenced": true}})'
    return Refusal(code="fencing-not-confirmed", message=message, fix=fix)


def _answers(name: str) -> Refusal:
    fix = "a running host ends its migrations by itself; to declare it dead anyway, power it off first"
    return Refusal(code="host-answers", message=f"the agent of {name} answers, so the host is not dead", fix=fix)
