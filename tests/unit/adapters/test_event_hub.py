"""The hub of libvirt's events, on a libvirtd whose callbacks do not come, or that hangs."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import libvirt_qemu
import pytest
from structlog.testing import capture_logs

from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.session import connection, events
from sterna.adapters.libvirt.session.events import EventHub
from sterna.domain.errors import Unreachable
from sterna.kit.bounded import Bounded
from sterna.kit.threads import in_thread

VM = "0000-1"


class Guest:
    """A running domain."""

    def UUIDString(self) -> str:
        return VM


class Libvirtd:
    """Makes connections; what happens to each is the test's business."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.running: list[Guest] = []
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    def open(self, _uri: str) -> "Connection":
        self.answer()
        self.connections.append(Connection(self))
        return self.connections[-1]

    def answer(self) -> None:
        """Answers at once, or never, as long as it hangs."""
        if self.hangs.is_set():
            assert self.goes_on.wait(30)


class Connection:
    """Keeps the callbacks it is given to itself."""

    def __init__(self, libvirtd: Libvirtd) -> None:
        self.libvirtd, self.alive = libvirtd, True
        self.lifecycle: Callable[..., None] = lambda *_: None
        self.closed: Callable[..., None] | None = None

    def registerCloseCallback(self, callback: Any, _opaque: object) -> None:
        self.closed = callback

    def domainEventRegisterAny(self, _domain: object, event: int, callback: Any, _opaque: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
            self.lifecycle = callback

    def listAllDomains(self, _flags: int) -> list[Guest]:
        self.libvirtd.answer()
        return list(self.libvirtd.running)

    def getLibVersion(self) -> int:
        self.libvirtd.answer()
        return 11_003_000

    def isAlive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.libvirtd.answer()


@pytest.fixture
def libvirtd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirtd]:
    one = Libvirtd()
    monkeypatch.setattr(events, "open_connection", one.open)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventRegister", lambda *_: None)
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(events, "ANSWER_S", 0.2)
    monkeypatch.setattr(events, "OPEN_S", 0.2)
    monkeypatch.setattr(events, "_RETRY_S", 0.02)
    yield one
    one.goes_on.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - the hub is a thread
            await asyncio.sleep(0.01)


async def test_a_connection_that_dies_without_its_callback_is_noticed_and_replaced(libvirtd: Libvirtd) -> None:
    hub = EventHub("test:///")
    async with asyncio.timeout(5):
        async with hub.subscribe(VM) as received:
            libvirtd.connections[0].alive = False
            with pytest.raises(Unreachable, match="missed"):
                await anext(received)
        await until(lambda: len(libvirtd.connections) == 2)
        async with hub.subscribe(VM) as received:
            libvirtd.connections[1].lifecycle(None, Guest(), libvirt.VIR_DOMAIN_EVENT_RESUMED, 0, None)
            assert (await anext(received)).kind == "resumed"
    hub.close()


async def test_a_libvirtd_that_lives_and_answers_nothing_is_noticed_and_found_again(libvirtd: Libvirtd) -> None:
    hub = EventHub("test:///")
    async with asyncio.timeout(20):
        async with hub.subscribe(VM) as received:
            libvirtd.hangs.set()
            with pytest.raises(Unreachable):
                await anext(received)
        await asyncio.sleep(1)  # it hangs for longer than any limit
        assert sum(t.name == "sterna-libvirt-hub-call" for t in threading.enumerate()) <= 9
        libvirtd.hangs.clear()
        libvirtd.goes_on.set()
        began = time.monotonic()
        async with hub.subscribe(VM):
            assert time.monotonic() - began < 2
    hub.close()


class NoThread:
    """A host that has no thread left, in place of the hub's `Bounded`, when it is `full`."""

    def __init__(self, bounded: Bounded) -> None:
        self._bounded, self.full, self.refused = bounded, threading.Event(), 0

    def call(self, *args: Any, **named: Any) -> Any:
        if self.full.is_set():
            self.refused += 1
            raise RuntimeError("can't start new thread")
        return self._bounded.call(*args, **named)


async def test_an_error_that_nobody_thought_of_does_not_end_the_following(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[NoThread] = []

    def one(name: str) -> NoThread:
        threads.append(NoThread(Bounded(name)))
        return threads[-1]

    monkeypatch.setattr(events, "Bounded", one)
    monkeypatch.setattr(events, "_READY_S", 0.1)
    hub = EventHub("test:///")
    with capture_logs() as said:
        async with asyncio.timeout(5):
            async with hub.subscribe(VM) as received:
                threads[0].full.set()
                with pytest.raises(Unreachable, match="missed"):
                    await anext(received)
            await until(lambda: threads[0].refused > 5)
            with pytest.raises(Unreachable, match="does not answer"):
                async with hub.subscribe(VM):
                    pass
            threads[0].full.clear()
            await until(hub._ready.is_set)
            async with hub.subscribe(VM) as received:
                libvirtd.connections[-1].lifecycle(None, Guest(), libvirt.VIR_DOMAIN_EVENT_RESUMED, 0, None)
                assert (await anext(received)).kind == "resumed"
    assert [line["log_level"] for line in said] == ["warning", "info"]
    hub.close()


async def test_a_subscriber_whose_loop_is_over_does_not_end_the_following(libvirtd: Libvirtd) -> None:
    class Over:
        """Is closed right after it was asked."""

        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *_: object) -> None:
            raise RuntimeError("Event loop is closed")

    hub = EventHub("test:///")
    async with asyncio.timeout(5):
        await until(hub._ready.is_set)
        hub._subscribers[VM] = [events._Subscriber(Over())]  # type: ignore[arg-type]
        libvirtd.connections[0].alive = False
        await until(lambda: len(libvirtd.connections) == 2)
    hub.close()


async def test_a_connection_that_was_given_up_ends_nothing_when_its_end_is_reported(libvirtd: Libvirtd) -> None:
    """Keep-alives report it some 25 s later. Its events count no more, either."""
    hub = EventHub("test:///")
    async with asyncio.timeout(5):
        await until(lambda: bool(libvirtd.connections))
        first = libvirtd.connections[0]
        first.alive = False
        await until(lambda: len(libvirtd.connections) == 2)
        async with hub.subscribe(VM) as received:
            assert first.closed is not None
            first.closed(first, 0, None)
            first.lifecycle(None, Guest(), libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0, None)
            libvirtd.connections[1].lifecycle(None, Guest(), libvirt.VIR_DOMAIN_EVENT_RESUMED, 0, None)
            assert (await anext(received)).kind == "resumed"
            waiting = asyncio.ensure_future(anext(received))
            assert not (await asyncio.wait({waiting}, timeout=5 * events.LOOK_EVERY_S))[0]
            waiting.cancel()
    assert len(libvirtd.connections) == 2
    hub.close()


async def test_a_libvirtd_that_answers_one_of_two_questions_is_noticed_in_the_time_of_one(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ANSWER_S", 2.0)
    monkeypatch.setattr(Connection, "getLibVersion", lambda self: time.sleep(1.5))
    hub = EventHub("test:///")
    async with asyncio.timeout(10):
        async with hub.subscribe(VM) as received:
            libvirtd.hangs.set()
            began = time.monotonic()
            with pytest.raises(Unreachable):
                await anext(received)
            assert time.monotonic() - began < 3
    hub.close()


async def test_an_event_loop_that_hangs_is_noticed_and_reported_until_it_runs_again(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt's own loop, held up by a callback of ours. libvirtd answers, and its connection is alive."""
    monkeypatch.setattr(events, "STILL_S", 1.5)
    monkeypatch.setattr(events, "TICK_S", 0.1)
    monkeypatch.setattr(events, "_READY_S", 0.1)
    connection.start_event_loop()
    inventory = LibvirtInventory("test:///")
    hub, held, go_on = inventory._events, threading.Event(), threading.Event()

    def hold(timer: int, _opaque: object) -> None:
        held.set()
        go_on.wait(20)
        libvirt.virEventRemoveTimeout(timer)

    try:
        with capture_logs() as said:
            async with asyncio.timeout(20):
                async with hub.subscribe(VM) as received:
                    libvirt.virEventAddTimeout(0, hold, None)
                    with pytest.raises(Unreachable, match="missed"):
                        await anext(received)
                assert held.is_set()
                await until(lambda: hub._loop_hangs)
                with pytest.raises(Unreachable, match="event loop") as raised:
                    async with hub.subscribe(VM):
                        pass
                assert "restart" in raised.value.fix
                with pytest.raises(Unreachable, match="event loop"):
                    await inventory.host()
                go_on.set()
                await until(hub._ready.is_set)
                hub.check_loop()
                async with hub.subscribe(VM):
                    pass
        assert [line["event"] for line in said] == ["libvirtd is lost", "libvirtd answers again"]
        assert "event loop" in said[0]["why"]
    finally:
        go_on.set()
        inventory.close()


async def test_a_process_that_stood_still_itself_keeps_its_connection_to_libvirtd(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = iter([60.0])
    monkeypatch.setattr(events, "TICK_S", 0.01)
    monkeypatch.setattr(events, "event_loop_silent_s", lambda: next(silent, 0.0))
    hub = EventHub("test:///")
    await until(lambda: next(silent, None) is None and bool(libvirtd.connections))
    await asyncio.sleep(4 * events.LOOK_EVERY_S)
    assert len(libvirtd.connections) == 1 and hub._ready.is_set()
    hub.close()


async def test_a_guest_whose_event_was_missed_is_seen_to_have_run(libvirtd: Libvirtd) -> None:
    hub = EventHub("test:///")
    await until(lambda: bool(libvirtd.connections))
    assert not hub.seen_running(VM)
    libvirtd.running.append(Guest())
    await until(lambda: hub.seen_running(VM))
    hub.close()


async def test_a_look_that_was_overtaken_by_news_does_not_undo_them(libvirtd: Libvirtd) -> None:
    libvirtd.running.append(Guest())
    hub = EventHub("test:///")
    await until(lambda: hub.seen_running(VM))
    conn = libvirtd.connections[0]

    def slow(_flags: int) -> list[Guest]:
        conn.listAllDomains = lambda _flags: []  # type: ignore[method-assign]  # the next look sees that it is gone
        stopped = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
        conn.lifecycle(None, Guest(), *stopped, None)
        return [Guest()]

    conn.listAllDomains = slow  # type: ignore[method-assign]
    await until(lambda: conn.listAllDomains is not slow)
    await asyncio.sleep(0.2)
    assert not hub.seen_running(VM)
    hub.close()


def test_libvirts_event_loop_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = threading.Semaphore(0)
    answers: list[Any] = [libvirt.libvirtError("the loop failed"), OSError("and again")]

    def turn() -> None:
        if answers:
            raise answers.pop()
        turns.release()
        time.sleep(0.01)

    monkeypatch.setattr(libvirt, "virEventRunDefaultImpl", turn)
    monkeypatch.setattr(connection, "_EVENTS_RETRY_S", 0.01)
    threading.Thread(target=connection._run_events, daemon=True).start()
    assert turns.acquire(timeout=5)


class Answers:
    """A connection whose libvirtd never answers about one guest: its QEMU hangs."""

    held = threading.Event()

    def isAlive(self) -> bool:
        return True

    def lookupByUUIDString(self, uuid: str) -> str:
        if uuid == "hangs":
            self.held.wait(30)
        return uuid

    def close(self) -> None:
        """Nothing."""


async def test_a_guest_whose_qemu_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "open_connection", lambda _uri: Answers())
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 0.2)
    one = connection.Connection("test:///", "test")
    stuck = asyncio.create_task(one.run(lambda conn: conn.lookupByUUIDString("hangs")))
    behind = asyncio.create_task(one.run(lambda conn: conn.lookupByUUIDString("fine")))
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s") as raised:
            await stuck
        assert "QEMU" in raised.value.fix
        assert await behind == "fine"
    Answers.held.set()
    one.close()


async def test_a_libvirtd_that_takes_a_connection_and_says_nothing(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "open_connection", libvirtd.open)
    monkeypatch.setattr(connection, "OPEN_S", 0.1)
    libvirtd.hangs.set()
    one = connection.Connection("test:///", "test")
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable, match="does not answer"):
            await one.run(lambda conn: conn.getLibVersion())
        libvirtd.hangs.clear()
        assert await one.run(lambda conn: conn.getLibVersion()) > 0
    one.close()


async def test_the_copy_itself_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "open_connection", lambda _uri: Answers())
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 0.05)
    one, over = connection.Connection("test:///", "test"), threading.Event()
    copying = asyncio.create_task(one.run(lambda _conn: over.wait(10), unlimited=True))
    assert not (await asyncio.wait({copying}, timeout=0.3))[0]
    over.set()
    assert await asyncio.wait_for(copying, 5)
    assert await in_thread(lambda: True)
    one.close()
