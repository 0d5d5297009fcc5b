"""Notifications are delivered: at least once, in order for each subject, whatever an endpoint answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import cycle, pairwise
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.notifications import endpoint
from sterna.domain.errors import NotFound, SternaError, Unreachable
from sterna.ports.bus import BusState
from sterna.ports.notifications import Answer, Notification
from tests.unit.controller.receiving import Scene

DOWN, UP = "host.down", "host.up"
AWAY = Unreachable("pager.example cannot be called: refused")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = await Scene.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    yield scene
    await scene.controller.stop()


async def test_what_has_happened_is_sent_once_and_in_order(scene: Scene) -> None:
    await scene.happens("a", True, False)
    await scene.happens("b", True)
    await scene.happens("a", True)
    await scene.deliver()
    await scene.deliver()
    assert scene.receiver.known("hosts/a") == [DOWN, UP, DOWN] and scene.receiver.known("hosts/b") == [DOWN]
    assert len(scene.receiver.tries) == 4 and scene.counted("delivered") == 4
    (state,) = await scene.notifications.states()
    assert (state.record.pending, state.server) == (0, "https://pager.example") and state.record.last_success_at


# ------------------------------------------------------------ endpoints that fail


@pytest.mark.parametrize("trouble", [AWAY, 502, 503, 429, 404, 401, 302], ids=str)
async def test_an_endpoint_that_fails_is_tried_again_less_and_less_often(
    scene: Scene, trouble: int | SternaError
) -> None:
    scene.receiver.answers = lambda _: trouble
    await scene.happens("a", True)
    times = []
    for _ in range(500):
        scene.clock.ms += 2000
        before = len(scene.receiver.tries)
        await scene.deliver()
        times += [scene.clock.ms] if len(scene.receiver.tries) > before else []
    pauses = [(later - sooner) / 1000 for sooner, later in pairwise(times)]
    assert pauses[0] < 8 and 100 < max(pauses) <= endpoint.LONGEST_S + 2 and len(pauses) < 20
    (state,) = await scene.notifications.states()
    assert "pager.example" in state.record.last_error and state.record.pending == 1
    scene.receiver.answers = lambda _: 200
    await scene.pass_s(endpoint.LONGEST_S)
    assert scene.receiver.known() == [DOWN] and scene.counted("failed") == len(times)


async def test_while_an_endpoint_fails_one_message_is_tried_at_a_time(scene: Scene) -> None:
    for number in range(20):
        await scene.happens(f"h{number}", True)
    scene.receiver.answers = lambda _: 503
    await scene.deliver()
    assert len(scene.receiver.tries) == endpoint.AT_ONCE
    await scene.pass_s(6)
    assert len(scene.receiver.tries) == endpoint.AT_ONCE + 1
    scene.receiver.answers = lambda _: 200
    await scene.pass_s(12)
    assert len(scene.receiver.known()) == 20


async def test_pauses_are_not_the_same_for_all(scene: Scene) -> None:
    scene.receiver.answers = lambda _: AWAY
    (one,) = scene.notifications._delivering
    one._chance = lambda: 1.0
    await scene.happens("a", True)
    await scene.deliver()
    scene.clock.ms += endpoint.FIRST_S * 500 - 1
    await scene.deliver()
    assert len(scene.receiver.tries) == 1
    scene.clock.ms += 1
    await scene.deliver()
    assert len(scene.receiver.tries) == 2


@pytest.mark.parametrize("status", [422, 500])
async def test_a_message_that_is_refused_holds_back_only_what_is_about_the_same(scene: Scene, status: int) -> None:
    """Also one on which the receiver itself fails."""
    for _ in range(3):
        await scene.happens("a", True, False)
        await scene.happens("b", True, False)
    refused = (await scene.fleet.due("pager", (), 1))[0]
    scene.receiver.answers = lambda one: status if one.id == refused.id else 200
    await scene.pass_s(600)
    assert scene.receiver.known("hosts/b") == [DOWN, UP] * 3 and scene.receiver.known("hosts/a") == []
    assert 3 <= len([one for one in scene.receiver.tries if one.id == refused.id]) < 20
    await scene.happens("c", True)
    await scene.pass_s(10)
    assert scene.receiver.known("hosts/c") == [DOWN]
    scene.receiver.answers = lambda _: 200
    await scene.pass_s(endpoint.LONGEST_S)
    assert scene.receiver.known("hosts/a") == [DOWN, UP] * 3


async def test_one_on_which_the_endpoint_seems_to_be_down_does_not_keep_the_others_from_it(scene: Scene) -> None:
    await scene.happens("a", True)
    for number in range(30):
        await scene.happens(f"h{number}", True)
    scene.receiver.answers = lambda one: 503 if one.subject == "hosts/a" else 200
    await scene.pass_s(60)
    assert len(scene.receiver.known()) == 30


async def test_it_is_not_tried_first_when_its_pause_is_over_before_the_endpoints(scene: Scene) -> None:
    """Both pauses are random: here that of the subject is always the shortest, and the other one the longest."""
    (one,) = scene.notifications._delivering
    one._chance = cycle([1.0, 0.0]).__next__
    await scene.happens("a", True)
    for number in range(30):
        await scene.happens(f"h{number}", True)
    scene.receiver.answers = lambda one: 503 if one.subject == "hosts/a" else 200
    await scene.pass_s(60)
    assert len(scene.receiver.known()) == 30


async def test_where_everything_is_refused_it_is_not_tried_without_an_end(scene: Scene) -> None:
    scene.receiver.answers = lambda _: 400
    for number in range(endpoint.MOST_HELD_BACK + 50):
        await scene.happens(f"h{number}", True)
    await scene.deliver()
    assert endpoint.MOST_HELD_BACK <= len(scene.receiver.tries) < endpoint.MOST_HELD_BACK + endpoint.AT_ONCE
    scene.receiver.answers = lambda _: 200
    await scene.pass_s(2 * endpoint.LONGEST_S)
    assert len(scene.receiver.known()) == endpoint.MOST_HELD_BACK + 50


@pytest.mark.parametrize("trouble", [AWAY, 400], ids=["endpoint", "message"])
async def test_what_is_too_old_is_given_up_and_counted(scene: Scene, trouble: int | SternaError) -> None:
    scene.receiver.answers = lambda _: trouble
    await scene.happens("a", True)
    await scene.pass_s(86_000, step_s=100)
    await scene.happens("a", False)
    assert scene.counted("given_up") == 0
    await scene.pass_s(1_000, step_s=100)
    assert scene.counted("given_up") == 1
    scene.receiver.answers = lambda _: 200
    await scene.pass_s(endpoint.LONGEST_S)
    assert scene.receiver.known() == [UP]


async def test_what_is_old_is_tried_before_it_is_given_up(scene: Scene) -> None:
    """All controllers were down for two days."""
    await scene.happens("a", True)
    scene.clock.ms += timedelta(days=2).total_seconds() * 1000
    await scene.another().look()
    assert scene.receiver.known() == [DOWN]


async def test_a_clock_that_is_set_forward_gives_nothing_up(scene: Scene) -> None:
    scene.receiver.answers = lambda _: AWAY
    await scene.happens("a", True)
    scene.clock.jump_s = timedelta(days=400).total_seconds()
    await scene.pass_s(60)
    assert scene.counted("given_up") == 0 and scene.counted("failed") > 1


async def test_records_that_are_away_lose_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.happens("a", True, False)

    async def away(*_: object) -> None:
        raise Unreachable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(scene.fleet, "delivered", away)
        with pytest.raises(Unreachable):
            await scene.deliver()
    await scene.deliver()
    assert [one.type for one in scene.receiver.accepted] == [DOWN, DOWN, UP]
    assert scene.receiver.known() == [DOWN, UP]


# ------------------------------------------------------------ several endpoints and controllers


class Slow:
    """Implements ports.notifications.Sender: `slow` does not answer."""

    def __init__(self) -> None:
        self.go, self.came = asyncio.Event(), asyncio.Queue[str]()

    async def send(self, notification: Notification, *, read: bool = False) -> Answer:
        if notification.endpoint == "slow":
            await self.go.wait()
        self.came.put_nowait(notification.endpoint)
        return Answer(status=200)


async def test_an_endpoint_that_hangs_holds_up_no_other_one(tmp_path: Path) -> None:
    scene = await Scene.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"), "fast", "slow")
    slow = Slow()
    chosen = [one.endpoint for one in scene.notifications._delivering]
    scene.notifications.use(chosen, slow)
    await scene.happens("a", True, False)
    scene.notifications.start()
    async with asyncio.timeout(10):
        assert [await slow.came.get() for _ in range(2)] == ["fast", "fast"]
        assert slow.came.empty()
        slow.go.set()
        assert [await slow.came.get() for _ in range(2)] == ["slow", "slow"]
    await scene.controller.stop()


async def test_one_controller_sends_and_another_one_takes_over(scene: Scene) -> None:
    other = scene.another()
    await scene.happens("a", True)
    await scene.deliver()
    await scene.happens("a", False)
    for _ in range(3):
        scene.clock.ms += 4_000
        await other.look()
    assert scene.receiver.known() == [DOWN]  # the first one may live
    await scene.deliver()
    assert scene.receiver.known() == [DOWN, UP]
    await scene.happens("b", True)
    for _ in range(5):
        scene.clock.ms += 4_000
        await other.look()
    assert scene.receiver.known("hosts/b") == [DOWN]
    await scene.happens("b", False)
    await scene.deliver()
    assert scene.receiver.known("hosts/b") == [DOWN]  # it is the other one's now


async def test_a_controller_that_stops_leaves_it_to_another_one_at_once(scene: Scene) -> None:
    scene.notifications.start()
    await scene.happens("a", True)
    async with asyncio.timeout(10):
        await scene.receiver.came.wait()
    await scene.notifications.stop()
    await scene.happens("a", False)
    await scene.another().look()
    assert scene.receiver.known() == [DOWN, UP]


async def test_an_endpoint_of_other_settings_is_shown_as_such(scene: Scene) -> None:
    await scene.another("chat").register()
    await scene.happens("a", True)
    await scene.deliver()
    chat, pager = await scene.notifications.states()
    assert (chat.record.name, chat.server, chat.record.pending) == ("chat", "", 1)
    assert (pager.record.name, pager.record.pending) == ("pager", 0)
    samples = (await scene.notifications.pending()).samples
    assert samples == ((("pager",), 0.0),)


# ------------------------------------------------------------ tests of endpoints


async def test_a_test_is_sent_at_once_and_says_what_was_answered(scene: Scene) -> None:
    scene.receiver.answers = lambda one: 418 if one.type == "test" else AWAY
    (tested,) = await scene.notifications.test(None)
    assert (tested.accepted, tested.status, tested.answer) == (False, 418, "as you like")
    scene.receiver.answers = lambda _: AWAY
    (tested,) = await scene.notifications.test("pager")
    assert (tested.accepted, tested.status, tested.error) == (False, None, AWAY.message)
    with pytest.raises(NotFound, match="no endpoint chat"):
        await scene.notifications.test("chat")
    assert {one.type for one in scene.receiver.tries} == {"test"}


# ------------------------------------------------------------ hosts that go down


async def watch(scene: Scene, seconds: float, *beating: str) -> None:
    until = scene.clock.ms + seconds * 1000
    while scene.clock.ms < until:
        scene.clock.ms += 2_000
        if beating:
            await scene.bus.beat(scene.controller, *beating)
        await scene.notifications.look()


async def test_a_host_is_reported_as_down_after_half_a_minute_and_once(scene: Scene) -> None:
    await watch(scene, 10, "a", "b")
    await watch(scene, 20, "a")
    await watch(scene, 10, "a", "b")  # its agent was restarted
    await watch(scene, 30, "a")
    assert scene.receiver.known() == []
    await watch(scene, 60, "a")
    assert scene.receiver.known() == [DOWN] and scene.receiver.accepted[0].subject == "hosts/b"
    assert "nothing received from its agent since" in scene.receiver.accepted[0].data["reason"]
    await watch(scene, 10, "a", "b")
    assert scene.receiver.known() == [DOWN, UP]


async def test_without_the_bus_no_host_is_reported(scene: Scene) -> None:
    await watch(scene, 10, "a", "b")
    connected = scene.bus.bus
    scene.bus.bus = BusState(connected=False, since=scene.clock.now(), why="refused")
    await watch(scene, 120)
    scene.bus.bus = connected
    await watch(scene, 20)
    assert scene.receiver.known() == []
    await watch(scene, 40)
    assert scene.receiver.known() == [DOWN, DOWN]


async def test_a_host_that_was_declared_dead_is_not_reported_as_down(scene: Scene) -> None:
    await watch(scene, 10, "a", "b")
    await scene.fleet.set_dead("b", scene.clock.now().isoformat())
    await watch(scene, 120, "a")
    assert scene.receiver.known() == ["host.declared_dead"]
