"""An operation by a controller that dies at one of its acts, and then by another one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from sterna.controller.controller import Controller
from sterna.domain.errors import Unreachable
from sterna.domain.status import Status
from tests.unit.controller.dying import Death, MortalBus, MortalFleet
from tests.unit.controller.operating import Stage


class Play(Stage):
    """The first controller, while it lives, and the other one look at the same operations."""

    def __init__(self, engine: Engine, nth: int, *, after: bool) -> None:
        living = Stage.of(MortalFleet(engine, Death()))
        super().__init__(living.bus, living.clock, living.controller)
        self.death = Death(nth, after=after)
        bus: Any = MortalBus(self.bus, self.death)
        self.mortal: Controller | None = Controller(MortalFleet(engine, self.death), bus, self.clock)
        self.failed: set[str] = set()

    async def tick(self) -> None:
        """The first one looks while it lives, the other one all the time."""
        self.clock.ms += 2000
        await self.refresh()
        await self.controller.follower.tidy()
        if self.mortal is not None:
            await self._look(self.mortal)
        await self._look(self.controller)

    async def _look(self, controller: Controller) -> None:
        try:
            await self.bus.beat(controller)
            await controller.operations.look()
        except Unreachable:
            pass
        await controller.operations.acting.drained()
        if self.mortal is not None and self.death.dead:
            self.mortal = None

    def raise_if_aborted(self) -> None:
        """x2's first migration fails; the others complete one by one."""
        for migration in self.open()[:1]:
            if migration.vm_name == "x2" and not self.failed:
                self.failed.add(migration.id)
                self.fail(migration, "", Status.FAILED)
            else:
                self.complete(migration)
