"""A controller that dies at one of its writes to the records, calls to agents, or requests for empty hosts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Unreachable
from sterna.domain.model import Data
from sterna.ports.hooks import Hooks, Notice, Right
from tests.matrix.virtual import AtOnce
from tests.unit.controller.fakes import FakeBus


class Death:
    """Of one controller: at its `nth` act, before it is done or after. 0: it lives."""

    def __init__(self, nth: int = 0, *, after: bool = False) -> None:
        self.left, self.after, self.dead, self.acts = nth, after, False, 0
        self.where = ""

    def moment(self, what: str, *, after: bool) -> None:
        """Before and after each act. Whoever is dead does nothing any more."""
        if not self.dead and after is self.after:
            self.acts += 1
            self.left -= 1
            if self.left == 0:
                self.dead, self.where = True, what
        self.raise_if_dead()

    def raise_if_dead(self) -> None:
        """At each act, and at each read."""
        if self.dead:
            raise Unreachable("this controller is dead")


class MortalFleet(SqlFleet):
    """The records, as a controller that may die sees them."""

    def __init__(self, engine: Engine, death: Death) -> None:
        super().__init__(engine, AtOnce)
        self.death = death

    async def _run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self.death.raise_if_dead()
        return await super()._run(work, *args, **kwargs)

    async def _write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self.death.moment(work.__name__, after=False)
        result = await super()._write(work, *args, **kwargs)
        self.death.moment(work.__name__, after=True)
        return result


class MortalBus:
    """The bus, as the same controller sees it."""

    def __init__(self, bus: FakeBus, death: Death) -> None:
        self._bus, self._death = bus, death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def call(self, to: str, method: str, params: Data, **more: Any) -> Data:
        self._death.moment(method, after=False)
        answer = await self._bus.call(to, method, params, **more)
        self._death.moment(method, after=True)
        return answer


class MortalHooks:
    """What is asked to reboot hosts, as the same controller sees it."""

    def __init__(self, hooks: Hooks, death: Death) -> None:
        self._hooks, self._death = hooks, death

    def has_command(self) -> bool:
        return self._hooks.has_command()

    def against(self, url: str) -> str:
        return self._hooks.against(url)

    async def call(self, url: str, notice: Notice, right: Right) -> None:
        self._death.moment("call", after=False)
        await self._hooks.call(url, notice, right)
        self._death.moment("call", after=True)

    async def run(self, notice: Notice, limit_s: float, right: Right) -> None:
        self._death.moment("run", after=False)
        await self._hooks.run(notice, limit_s, right)
        self._death.moment("run", after=True)
