"""A controller dies at each of its writes to the records and each of its requests to an endpoint: before it, or
after. Another one goes on.

Each event is written once, arrives, and arrives in order. At most what was under way arrives twice.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.records.projector import apply
from sterna.domain.errors import SternaError, Unreachable
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.ports.notifications import Answer, Notification
from sterna.ports.operations import Standing
from tests.contract.operation_records import FIRST, drain
from tests.contract.records import AT, batch, facts, move
from tests.matrix.virtual import AtOnce
from tests.unit.controller.dying import Death, MortalFleet
from tests.unit.controller.fakes import FakeBus, HandClock
from tests.unit.controller.receiving import Receiver, notifications_of
from tests.unit.domain.journals import good_source

STEPS = 4


class MortalSender:
    """The way to the receiver, of a controller that may die."""

    def __init__(self, receiver: Receiver, death: Death) -> None:
        self._receiver, self._death = receiver, death

    async def send(self, notification: Notification, *, read: bool = False) -> Answer:
        self._death.moment("send", after=False)
        answer = await self._receiver.send(notification, read=read)
        self._death.moment("send", after=True)
        return answer


async def changes(fleet: SqlFleet) -> None:
    """A migration, an operation and a host, each through its life. Repeated, it goes on where it was."""
    await fleet.admit(move(1), AT)
    await fleet.accepted(move(1), AT)
    await fleet.take(batch("a", good_source(move(1))), apply, AT)
    operation, _ = await fleet.add_operation(drain(FIRST, "b"))
    if operation.status is OperationStatus.RUNNING:
        held = await fleet.take_operation(operation, "x")
        assert held is not None
        await fleet.stand(FIRST, held.epoch, Standing(at=AT, promised_s=600))
        await fleet.order_operation(FIRST, Order.STOP, "token:ops", AT)
    held = await fleet.operation(FIRST)
    if held.status is OperationStatus.STOPPING:
        await fleet.conclude(held, OperationStatus.STOPPED, Standing(at=AT), AT)
    await fleet.note_reach("b", True, AT)
    await fleet.set_dead("b", AT)


EXPECTED = {
    "migrations/m1": ["migration.accepted", "migration.switched_over", "migration.completed"],
    f"operations/{FIRST}": [
        "operation.started",
        "operation.promise_changed",
        "operation.stopping",
        "operation.ended",
    ],
    "hosts/b": ["host.down", "host.declared_dead"],
}


async def play(engine: Engine, nth: int, *, after: bool) -> int:
    """How many acts the first controller has done."""
    death, clock, receiver, bus = Death(nth, after=after), HandClock(), Receiver(), FakeBus()
    living, mortal = SqlFleet(engine, AtOnce), MortalFleet(engine, death)
    for number, name in enumerate("ab"):
        await living.save_host(facts(name, number), "life-1", AT)
    _, first = notifications_of(mortal, bus, clock, MortalSender(receiver, death))
    _, other = notifications_of(living, bus, clock, receiver)
    await other.register()
    try:
        await first.register()
        await changes(mortal)
    except SternaError:
        assert death.dead
    await changes(living)
    (one,), (two,) = first._delivering, other._delivering
    for _ in range(30):
        clock.ms += 2_000
        try:
            await one.look()
            if not death.dead and not (await living.endpoints())[0].pending:
                await one.leave()
        except Unreachable:
            assert death.dead
        await two.look()
    about = f"died at act {nth} ({death.where}, {'after' if after else 'before'})"
    for subject, types in EXPECTED.items():
        assert receiver.known(subject) == types, about
    times = Counter(one.id for one in receiver.accepted)
    assert sum(times.values()) - len(times) <= 3, about  # those that were under way together
    assert not (await living.endpoints())[0].pending, about
    return death.acts


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with empty tables: to make them takes longer than the rest."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    engine = open_database(f"sqlite:///{path}")
    engine.dispose()
    return path


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", range(1, STEPS + 1))
def test_a_controller_may_die_at_any_act(tmp_path: Path, empty: Path, first: int, after: bool) -> None:
    """Every act is the last one once: each of these tests takes every fourth."""
    nth = first
    while True:
        shutil.copy(empty, tmp_path / f"{nth}.db")
        engine = open_database(f"sqlite:///{tmp_path}/{nth}.db")
        acts = asyncio.run(play(engine, nth, after=after))
        engine.dispose()
        if acts < nth:
            break
        nth += STEPS
    assert acts > 5 * STEPS
