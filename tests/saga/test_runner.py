"""The runner alone: what each kind of error asks for, and what is in the journal when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.entries.base import NoPlan, Outcome
from sterna.domain.errors import Cancelled, Permanent, Temporary, Unknown, from_wire
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import Data
from sterna.domain.step import Flow, History, Step
from sterna.kit.aborts import raise_if_aborted
from sterna.saga.runner import Runner
from sterna.sim.world.clock import SimClock
from tests.narrowing import not_none


@dataclass
class World:
    """What the steps below do to it, and how they misbehave."""

    journal: SqlJournal
    errors: dict[str, list[BaseException]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    history: History = field(default_factory=History)
    abort: asyncio.Event = field(default_factory=asyncio.Event)
    clock: SimClock = field(default_factory=SimClock)

    def write(
        self, kind: Kind, *, row: str = "", name: str = "", data: Data | None = None, lazily: bool = False
    ) -> None:
        self.history.add(self.journal.append("m", kind, row=row, name=name, data=data or {}, lazily=lazily))

    def flush(self) -> None:
        self.journal.flush()


class By(Outcome):
    entry = ""

    by: str


class Recorded(Step[World, NoPlan, By]):
    async def do(self, ctx: World, plan: NoPlan) -> By:
        for error in ctx.errors.get(self.name, [])[:1]:
            ctx.errors[self.name].pop(0)
            raise error
        ctx.done.append(self.name)
        return By(by=self.name)


class UndoA(Recorded):
    name = "undo-a"


class UndoB(Recorded):
    name = "undo-b"


class Before(Recorded):
    name = "before-undo"


class After(Recorded):
    name = "after-undo"


class A(Recorded):
    name = "a"
    undo: ClassVar = (UndoA,)


class B(Recorded):
    name = "b"
    undo: ClassVar = (UndoB,)
    patience_s = 5.0


class C(Recorded):
    name = "c"


class Slow(Recorded):
    name = "slow"
    patience_s = 5.0

    async def do(self, ctx: World, plan: NoPlan) -> By:
        await ctx.clock.sleep(100)
        return await super().do(ctx, plan)


FLOW = Flow(until_pivot=(A, B), after_pivot=(C,), before_undo=(Before,), after_undo=(After,))


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
def world(clock: SimClock) -> World:
    journal = SqlJournal.at(None, clock=clock)
    migration = Migration(id="m", epoch=0, vm_uuid="v", vm_name="v", source="s", destination="d")
    journal.accept(migration, Role.SOURCE)
    return World(journal, clock=clock)


def kinds(world: World, name: str) -> list[Kind]:
    return [e.kind for e in world.journal.entries("m") if e.name == name]


async def test_the_intent_is_in_the_journal_before_the_step_acts(world: World, clock: SimClock) -> None:
    seen = []

    async def strike(name: str, row: str, moment: str) -> None:
        seen.append((name, moment, kinds(world, name)))

    await clock.run(Runner(clock, strike).drive(FLOW, world))
    assert seen[0] == ("a", "before", [Kind.INTENT])
    assert seen[1] == ("a", "after", [Kind.INTENT])
    assert kinds(world, "a") == [Kind.INTENT, Kind.DONE]
    assert world.done == ["a", "b", "c"]


async def test_patience_is_counted_from_the_first_error_not_from_the_steps_beginning(
    world: World, clock: SimClock
) -> None:
    world.errors["slow"] = [Temporary("its agent was just killed")]
    await clock.run(Runner(clock).drive(Flow(until_pivot=(A, Slow)), world))
    assert world.done == ["a", "slow"]


class Lasting(Slow):
    name = "lasting"

    def lasts(self, ctx: World) -> bool:
        return True


@pytest.mark.parametrize(("step", "reached"), [(Lasting, True), (Slow, False)])
async def test_what_failed_before_a_step_went_well_for_long_counts_no_more(
    world: World, clock: SimClock, step: type[Step[World, NoPlan, By]], reached: bool
) -> None:
    world.errors[step.name] = [Temporary("one hiccup"), Temporary("and another, much later")]
    await clock.run(Runner(clock).drive(Flow(until_pivot=(A, step)), world))
    assert (step.name in world.done) is reached


async def test_a_lasting_steps_patience_ends_all_the_same(world: World, clock: SimClock) -> None:
    class Failing(B):
        name = "failing"

        def lasts(self, ctx: World) -> bool:
            return True

    world.errors["failing"] = [Temporary("never")] * 100
    await clock.run(Runner(clock).drive(Flow(until_pivot=(A, Failing)), world))
    assert not_none(world.history.turned_back)["error"]["message"] == "never"


@pytest.mark.parametrize("name", ["a", "c", "undo-a"])
async def test_a_cancellation_of_what_a_step_waits_for_does_not_end_the_drive(
    world: World, clock: SimClock, name: str
) -> None:
    world.errors[name] = [asyncio.CancelledError()]
    if name == "undo-a":
        world.errors["b"] = [Permanent("no")]
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done[-1] == ("after-undo" if name == "undo-a" else "c")
    (failed,) = [e for e in world.journal.entries("m") if e.kind is Kind.FAILED and e.name == name]
    assert failed.data["error"]["code"] == Unknown.code


async def test_a_cancellation_of_the_drive_itself_ends_it(world: World, clock: SimClock) -> None:
    driving = asyncio.ensure_future(Runner(clock).drive(Flow(until_pivot=(Slow,)), world))
    await clock.advance(1)
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await clock.run(driving)
    assert kinds(world, "slow") == [Kind.INTENT]


async def test_temporary_is_retried_with_back_off_and_said_once(world: World, clock: SimClock) -> None:
    world.errors["a"] = [Temporary("not yet")] * 4
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "b", "c"]
    assert kinds(world, "a") == [Kind.INTENT, Kind.FAILED, Kind.DONE]
    assert clock.monotonic_ms() == pytest.approx((0.2 + 0.4 + 0.8 + 1.6) * 1000)


async def test_temporary_beyond_the_steps_patience_is_compensated_in_reverse(world: World, clock: SimClock) -> None:
    world.errors["b"] = [Temporary("never")] * 100
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "before-undo", "undo-b", "undo-a", "after-undo"]
    assert not_none(world.history.turned_back)["error"]["message"] == "never"


async def test_what_was_never_begun_is_not_undone(world: World, clock: SimClock) -> None:
    world.errors["a"] = [Permanent("no")]
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["before-undo", "undo-a", "after-undo"]


async def test_a_step_whose_outcome_is_unknown_is_repeated(world: World, clock: SimClock) -> None:
    world.errors["a"] = [Unknown("answer lost")]
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "b", "c"]


async def test_a_delay_that_is_asked_for_is_kept(world: World, clock: SimClock) -> None:
    """`Retry-After: 7` of a service."""
    world.errors["a"] = [Temporary("busy", delay_s=7.0)]
    began = clock.monotonic_ms()
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "b", "c"]
    assert 7000 <= clock.monotonic_ms() - began < 8000


async def test_a_delay_longer_than_the_steps_patience_is_cut(world: World, clock: SimClock) -> None:
    """`b` has 5 s: it is tried once more at their end, and then compensated."""
    world.errors["b"] = [Temporary("busy", delay_s=120.0)] * 50
    began = clock.monotonic_ms()
    await clock.run(Runner(clock).drive(FLOW, world))
    assert len(world.errors["b"]) == 48
    assert 5000 <= clock.monotonic_ms() - began < 6000


async def test_a_delay_that_is_asked_for_again_and_again_has_a_limit(world: World, clock: SimClock) -> None:
    """After the pivot nothing else limits it."""
    world.errors["c"] = [Temporary("busy", delay_s=300.0)]
    began = clock.monotonic_ms()
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "b", "c"]
    assert 60_000 <= clock.monotonic_ms() - began < 62_000


@pytest.mark.parametrize("delay", [-1, 1e9, "7", True, None, float("nan")])
def test_a_delay_from_a_peer_that_is_none_is_left_out(delay: object) -> None:
    error = from_wire({"code": "temporary", "message": "busy", "delay_s": delay})
    assert isinstance(error, Temporary)
    assert error.delay_s is None


def test_a_delay_crosses_the_bus() -> None:
    error = from_wire(Temporary("busy", delay_s=7.0).to_wire())
    assert isinstance(error, Temporary)
    assert error.delay_s == 7.0


async def test_after_the_pivot_even_a_permanent_error_is_retried(world: World, clock: SimClock) -> None:
    world.errors["c"] = [Permanent("storage says no")] * 50
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done == ["a", "b", "c"]


async def test_in_compensation_every_error_is_retried(world: World, clock: SimClock) -> None:
    world.errors["b"] = [Permanent("no")]
    world.errors["undo-a"] = [Permanent("host away")] * 50
    await clock.run(Runner(clock).drive(FLOW, world))
    assert world.done[-1] == "after-undo"


async def test_a_bug_in_a_step_is_compensated_and_named(world: World, clock: SimClock) -> None:
    world.errors["b"] = [ZeroDivisionError("oops")]
    await clock.run(Runner(clock).drive(FLOW, world))
    assert "ZeroDivisionError" in not_none(world.history.turned_back)["error"]["message"]
    assert world.done[-1] == "after-undo"


async def test_an_abort_ends_the_wait_between_two_tries(world: World, clock: SimClock) -> None:
    world.errors["b"] = [Temporary("not yet")] * 100

    async def abort() -> None:
        await clock.sleep(1)
        world.abort.set()

    await clock.run(asyncio.gather(Runner(clock).drive(FLOW, world), abort()))
    assert not_none(world.history.turned_back)["error"]["code"] == Cancelled.code
    assert clock.monotonic_ms() < 5000


@pytest.mark.parametrize("error", [None, "a", "b"])
async def test_from_every_interrupted_prefix_the_same_end_is_reached(
    world: World, clock: SimClock, error: str | None
) -> None:
    """Cut the journal after each entry and run again: what is left is done, what was done is not repeated."""
    if error:
        world.errors[error] = [Permanent("no")]
    await clock.run(Runner(clock).drive(FLOW, world))
    whole = world.journal.entries("m")
    end = History.read(whole).results.keys()
    for length in range(1, len(whole) + 1):
        cut = World(SqlJournal.at(None, clock=clock), history=History())
        migration = Migration(id="m", epoch=0, vm_uuid="v", vm_name="v", source="s", destination="d")
        cut.journal.accept(migration, Role.SOURCE)
        for entry in whole[1:length]:
            cut.write(entry.kind, row=entry.row, name=entry.name, data=entry.data)
        finished = set(cut.history.results)
        if error and cut.history.turned_back is None:
            cut.errors[error] = [Permanent("no")]
        await clock.run(Runner(clock).drive(FLOW, cut))
        assert cut.history.results.keys() == end
        assert not finished & set(cut.done)


class Hears(Recorded):
    """Aborted in its middle."""

    name = "hears"

    async def do(self, ctx: World, plan: NoPlan) -> By:
        ctx.abort.set()
        raise_if_aborted()
        return await super().do(ctx, plan)


class Settles(Hears):
    name = "settles"
    settles_abort = True


async def test_an_abort_is_heard_in_the_middle_of_a_step_where_it_still_counts(
    world: World, clock: SimClock
) -> None:
    runner = Runner(clock)
    with pytest.raises(Cancelled):
        await clock.run(runner.run((Hears,), world))
    assert world.done == []
    world.abort.clear()
    await clock.run(runner.run((Settles,), world))
    await clock.run(runner.run((Hears,), world, forever=True))
    assert world.done == ["settles", "hears"]
