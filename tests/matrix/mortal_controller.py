"""The controller of a case: the real one, which may die and is started again, on a real database.

It may die, hang, or lose its database at any moment. The agents must not notice, and its records must be right
again once it is back: `wrong` compares them with the world and with the journals' stored lines.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, delete, text

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.adapters.sql.fleet_schema import metadata
from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import Permanent, SternaError, Temporary, Unknown, Unreachable
from sterna.domain.objective import Asked
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.rpc.client import RpcClient
from tests.matrix import virtual
from tests.matrix.life import LIFE, STEP, TOUCH, GuardedBus, GuardedClock, Life

if TYPE_CHECKING:
    from tests.matrix.stage import Stage

NAME = "controller"
FINAL = ("completed", "failed", "cancelled")


class MortalController:
    """One controller at a time."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.database_up = True
        self._engine = _database()
        self._born = 0
        self.life: Life | None = None
        self._controller: Controller | None = None

    # ------------------------------------------------------------ its lives

    async def start(self) -> None:
        """A new life on the same records; tried again until it comes up."""
        STEP.set("-")
        TOUCH.set("")
        while True:
            self._born += 1
            life = self.life = Life(self.stage, NAME, self._born)
            token = LIFE.set(life)
            try:
                bus = GuardedBus(life, self.stage.broker.bus(life.name, CONTROLLER_TOKEN))
                clock = GuardedClock(life, self.stage.clock)
                fleet: Any = GuardedFleet(self, life)
                self._controller = Controller(fleet, RpcClient(bus, CONTROLLER_TOKEN, clock), clock)
                await self._controller.start()
                self.stage.tell_story(NAME, f"starts ({life.name})")
                return
            except SternaError as error:
                self.stage.tell_story(NAME, f"does not come up: {error}")
                life.die()
            except asyncio.CancelledError:
                if not life.dead:
                    raise
                return
            finally:
                LIFE.reset(token)
            await self.stage.clock.sleep(1.0)

    def kill(self, down_s: float) -> None:
        """kill -9, and a new start later."""
        if self.life is None or self.life.dead:
            return
        self.stage.tell_story(NAME, f"dies, for {down_s:g} s")
        self.life.die()
        self.stage.later(down_s, lambda: self.stage.spawn(self.start()))

    def close(self) -> None:
        """The play is over."""
        if self.life is not None:
            self.life.die()

    # ------------------------------------------------------------ its users

    async def migrate(self, migration: str, vm: str, to: str, asked: Asked) -> str:
        """A user asks, with the same id until there is an answer. '' or the refusal."""
        request = MigrateRequest(id=migration, vm=vm, destination=to, asked=asked)
        until = self.stage.clock.monotonic_ms() + 900_000
        while self.stage.clock.monotonic_ms() < until:
            try:
                await self._ask(lambda c: c.migrate(request))
                return ""
            except (Temporary, Unknown, ConnectionError) as error:
                self.stage.tell_story("user", f"asks again: {error}")
            except Permanent as error:
                if not self._passing(error):
                    return error.message
            await self.stage.clock.sleep(1.0)
        return "no answer"

    async def abort(self, migration: str) -> bool:
        """A user aborts. True if that was accepted."""
        for _ in range(20):
            try:
                await self._ask(lambda c: c.abort(migration))
                return True
            except (Temporary, Unknown, ConnectionError):
                await self.stage.clock.sleep(1.0)
            except Permanent as error:
                self.stage.tell_story("user", f"abort: {error.message}")
                return False
        return False

    async def _ask(self, what: Callable[[Controller], Any]) -> None:
        """One request to the controller of this moment. Raises ConnectionError when it dies over it."""
        life, controller = self.life, self._controller
        if life is None or controller is None or life.dead:
            raise ConnectionError("no controller")
        token = LIFE.set(life)
        asking = asyncio.get_running_loop().create_task(what(controller))
        LIFE.reset(token)
        await asyncio.wait({asking})
        if asking.cancelled():
            raise ConnectionError("the controller died")
        asking.result()

    def _passing(self, error: SternaError) -> bool:
        """A host that has not been heard yet is refused as down: that passes."""
        codes = {r.code for r in getattr(error, "refusals", ())}
        return bool(codes & {"source-down", "destination-down", "no-such-host", "no-such-vm", "check-failed"})

    # ------------------------------------------------------------ the audit

    def status(self, migration: str) -> str:
        """What its record says, of one that no agent may ever have heard of."""
        with self._engine.begin() as c:
            found = c.execute(text("select status from migrations where id = :id"), {"id": migration}).first()
        return str(found[0]) if found else ""

    def wrong(self) -> list[str]:
        """How its records differ from the journals and the world, read raw."""
        if self.life is None or self.life.dead:
            return ["the controller is dead"]
        found: list[str] = []
        with self._engine.begin() as c:
            migrations = c.execute(text("select id, status, document from migrations")).all()
            vms = c.execute(text("select uuid, host, migration_id, document from vms")).all()
        for key, status, document in migrations:
            record = json.loads(document)
            source, to = record["migration"]["source"], record["migration"]["destination"]
            said = self.stage.status(source, key)
            if (said or status) != status or status not in FINAL:
                found.append(f"the record of {key[-2:]} says {status}, the journal {said or 'nothing'}")
            for side, host in (("source_closed", source), ("destination_closed", to)):
                page = self.stage.journals[host].pages.get(key)
                if page is not None and page.closed is not record[side]:
                    found.append(f"the record of {key[-2:]} says {side} {record[side]}")
        for uuid, host, holder, _ in vms:
            running = self.stage.auditor.running(uuid)
            if holder is not None or (running and running != [host]):
                found.append(f"the record of the VM says {host}, held by {holder}; it runs on {running}")
        return found


class GuardedFleet:
    """The records as one life of the controller sees them."""

    def __init__(self, controller: MortalController, life: Life) -> None:
        self._controller, self._life = controller, life
        self._fleet = SqlFleet(controller._engine, virtual.AtOnce)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._fleet, name)
        life, controller = self._life, self._controller
        if not inspect.iscoroutinefunction(found):
            return found

        async def guarded(*args: Any, **named: Any) -> Any:
            await life.gate()
            life.moment(f"database/{name} before")
            await life.gate()
            if not controller.database_up:
                raise Unreachable("the controller's database does not answer", fix="see to it")
            result = await found(*args, **named)
            controller.stage.stirred()
            life.moment(f"database/{name} after")
            await life.gate()
            return result

        return guarded


@cache
def _engine() -> Engine:
    return open_database("sqlite://")


def _database() -> Engine:
    """Empty records. One database serves all cases of a process: making its tables takes longer than a case."""
    engine = _engine()
    with engine.begin() as c:
        for table in reversed(metadata.sorted_tables):
            c.execute(delete(table))
    return engine
