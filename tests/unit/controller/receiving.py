"""A receiver of notifications that answers as it is told, and controllers that send to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.notifications.endpoint import Chosen
from sterna.controller.notifications.notifications import Notifications
from sterna.domain.errors import SternaError
from sterna.domain.notifications.events import CHOSEN
from sterna.ports.notifications import Answer, Notification
from tests.unit.controller.fakes import FakeAgent, FakeBus, HandClock

Answers = Callable[[Notification], int | SternaError]


@dataclass
class Receiver:
    """Implements ports.notifications.Sender."""

    answers: Answers = lambda _: 204
    came: asyncio.Event = field(default_factory=asyncio.Event)
    """Something was accepted."""
    tries: list[Notification] = field(default_factory=list)
    accepted: list[Notification] = field(default_factory=list)
    """In the order in which they came; those that came again are there again."""

    async def send(self, notification: Notification, *, read: bool = False) -> Answer:
        self.tries.append(notification)
        answer = self.answers(notification)
        if isinstance(answer, SternaError):
            raise answer
        if 200 <= answer < 300:
            self.accepted.append(notification)
            self.came.set()
        return Answer(status=answer, text="as you like" if read else "")

    def known(self, subject: str = "") -> list[str]:
        """Types of what came, without repetitions, perhaps only about that."""
        first = {one.id: one for one in self.accepted if subject in ("", one.subject)}
        return [str(one.type) for one in first.values()]


def notifications_of(
    fleet: SqlFleet, bus: FakeBus, clock: HandClock, receiver: object, names: Sequence[str] = ("pager",)
) -> tuple[Controller, Notifications]:
    """Of one more controller."""
    controller = Controller(fleet, bus, clock)
    chosen = [Chosen(name, f"https://{name}.example", CHOSEN) for name in names]
    controller.notifications.use(chosen, receiver)  # type: ignore[arg-type]
    return controller, controller.notifications


@dataclass
class Scene:
    """Two hosts, one controller, and an endpoint `pager`."""

    fleet: SqlFleet
    bus: FakeBus
    clock: HandClock
    receiver: Receiver
    controller: Controller
    notifications: Notifications

    @classmethod
    async def of(cls, fleet: SqlFleet, *names: str) -> Scene:
        bus, clock, receiver = FakeBus(FakeAgent("a", 1), FakeAgent("b", 2)), HandClock(), Receiver()
        controller, notifications = notifications_of(fleet, bus, clock, receiver, names or ("pager",))
        await notifications.register()
        return cls(fleet, bus, clock, receiver, controller, notifications)

    def another(self, *names: str) -> Notifications:
        """Of another controller of the same records, with the same receiver."""
        found = notifications_of(self.fleet, self.bus, self.clock, self.receiver, names or ("pager",))
        return found[1]

    async def happens(self, host: str, *downs: bool) -> None:
        """The host goes down or up, that many times."""
        for down in downs:
            self.clock.ms += 1
            assert await self.fleet.note_reach(host, down, self.clock.now().isoformat())

    async def pass_s(self, seconds: float, step_s: float = 2.0) -> None:
        """Time goes by, and the controller looks."""
        until = self.clock.ms + seconds * 1000
        while self.clock.ms < until:
            self.clock.ms += step_s * 1000
            await self.deliver()

    async def deliver(self) -> None:
        """Look once at each endpoint."""
        for one in self.notifications._delivering:
            await one.look()

    def counted(self, result: str, name: str = "pager") -> float:
        """As in the metrics."""
        numbers = dict(self.notifications.sent().samples)
        number = numbers[name, result]
        assert isinstance(number, float)
        return number
