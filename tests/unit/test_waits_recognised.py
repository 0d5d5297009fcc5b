"""What `waits.py` recognises as a wait without a limit, and what not."""

from __future__ import annotations

from tests.parsing import parse
from tests.unit.waits import HELD_BRIEFLY, Names, Waits


def test_a_name_is_recognised() -> None:
    for call in ("s.bind((host, 1))", "s.connect((str(host), 1))", "s.bind(where)", "s.sendto(b'', (host, 1))"):
        seen = Names("x.py")
        seen.visit(parse(f"def f(host: str):\n {call}"))
        assert seen.found == {"x.py:f"}, call
    seen = Names("x.py")
    seen.visit(parse("def f(host: Numeric):\n s.bind((str(host), 1))"))
    assert seen.found == set()


def test_a_wait_is_recognised() -> None:
    seen = Waits("x.py")
    seen.visit(parse("async def f():\n async with asyncio.timeout(1):\n  await e.wait()\n await asyncio.wait(x)"))
    assert seen.found == {"x.py:f"}
    for wait in ("async with self._locks[h]: pass", "async with self._gate(vm): pass", "await asyncio.shield(t)"):
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n {wait}"))
        assert seen.found == {"x.py:f"}, wait
    for limit in ("None", "None if for_ever else 1", "1 if soon else None"):
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n async with asyncio.timeout({limit}):\n  await e.wait()"))
        assert seen.found == {"x.py:f"}, limit
    for wait in (
        "pool.shutdown(wait=True)",
        "asyncio.gather(a, b)",
        "all_of(work(x) for x in xs)",
        "both(a, b)",
        "asyncio.gather(a, b, return_exceptions=True)",
        "socket.getaddrinfo(name, 0)",
        "socket.create_connection(where)",
        "ThreadPoolExecutor(1)",
        "loop.run_in_executor(None, act)",
        "asyncio.to_thread(act)",
        "server.serve(sockets=s)",
        "in_thread(lambda: e.wait())",
    ):
        seen = Waits("x.py")
        seen.visit(parse(f"def f():\n {wait}"))
        assert seen.found == {"x.py:f"}, wait
    seen = Waits("x.py")
    seen.visit(parse("def f():\n with subprocess.Popen(x) as p:\n  pass"))
    assert seen.found == {"x.py:f"}
    seen = Waits("x.py")
    seen.visit(parse("async def f():\n async with asyncio.timeout(1 if x is None else 2):\n  await e.wait()"))
    seen.visit(parse("def f():\n e.wait(1)\n d.get('x')\n asyncio.wait(x, timeout=1)"))
    seen.visit(parse("async def f():\n async with asyncio.timeout(1), lock:\n  pass"))
    seen.visit(parse("async def f():\n x.cancel()\n await asyncio.gather(x, return_exceptions=True)"))
    seen.visit(parse("def f():\n socket.create_connection(where, timeout=1)"))
    seen.visit(parse("async def f():\n await in_thread(lambda: socket.getaddrinfo(n, 0), limit_s=1)"))
    assert seen.found == set()


def test_the_end_of_a_connection_and_what_is_written_to_it_are_waits() -> None:
    for wait in (
        "await client.disconnect()",
        "await writer.drain()",
        "await writer.wait_closed()",
        "await queue.put(one)",
        "await reader.read(100)",
        "await reader.readexactly(5)",
        "await socket.recv()",
        "await self._task",
        "await tasks[0]",
        "async for one in stream: pass",
        "subprocess.run(x, timeout=1)",
    ):
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n {wait}"))
        assert seen.found == {"x.py:f"}, wait
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n async with asyncio.timeout(1):\n  {wait}"))
        assert seen.found == set(), wait
    for module, call in (("socket", "s.recv(1)"), ("socket", "s.sendall(x)"), ("queue", "q.put(x)")):
        seen = Waits("x.py")
        seen.visit(parse(f"import {module}\ndef f():\n {call}"))
        assert seen.found == {"x.py:f"}, call
        seen = Waits("x.py")
        seen.visit(parse(f"def f():\n {call}"))
        assert seen.found == set(), call
    seen = Waits("x.py")
    seen.visit(parse("async def f():\n await volumes.disconnect(disk)\n await work()\n register.put(one)"))
    assert seen.found == set()


def test_a_lock_of_threads_is_recognised_and_what_is_waited_for_under_it() -> None:
    for made in ("_turn = threading.Lock()", "self._turn = threading.Condition()", "_turn: X = threading.RLock()"):
        seen = Waits("x.py")
        seen.visit(parse(f"def made(self):\n {made}\ndef f(self):\n with self._turn:\n  pass"))
        assert seen.found == {"x.py:f"} and not seen.held_over, made
    for entered in ("lock", "self._lock", "_loop_lock", "api.connection.lock", "self._locks[x]"):
        seen = Waits("x.py")
        seen.visit(parse(f"def f(self):\n with {entered}:\n  e.wait()"))
        assert seen.found == seen.held_over == {"x.py:f"}, entered
    seen = Waits(min(HELD_BRIEFLY))
    seen.visit(parse("def f(self):\n with self._lock:\n  self._known = x"))
    assert seen.found == set()
    seen = Waits("x.py")
    seen.visit(parse("def f(self):\n with os.fdopen(os.open(p, os.O_NONBLOCK)) as file:\n  pass"))
    assert seen.found == set()


def test_a_lock_is_recognised_by_how_it_is_made() -> None:
    for made in (
        "self._turn = asyncio.Lock()",
        "self._turn: asyncio.Semaphore = asyncio.Semaphore(1)",
        "self._turn = asyncio.BoundedSemaphore(2)",
        "_turn = self._turns.setdefault(vm, asyncio.Lock())",
        "self._turn = defaultdict(asyncio.Lock)",
    ):
        for entered in ("self._turn", "_turn", "self._turn[vm]", "self._turn as entered"):
            seen = Waits("x.py")
            seen.visit(parse(f"def made(self):\n {made}\nasync def f(self):\n async with {entered}:\n  pass"))
            assert seen.found == {"x.py:f"}, (made, entered)
    seen = Waits("x.py")
    seen.visit(parse("def made(self):\n self._pool = Pool()\nasync def f(self):\n async with self._pool:\n  pass"))
    assert seen.found == set()


def test_a_limit_that_may_be_none_is_no_limit() -> None:
    for none in ("None", "None if x else 1", "1 if x else None", "when=None", "None if x else 1 if y else 2"):
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n async with asyncio.timeout({none}):\n  await e.wait()"))
        assert seen.found == {"x.py:f"}, none
    for call in ("in_thread(act, limit_s=None)", "asyncio.wait(x, timeout=None if y else 1)"):
        seen = Waits("x.py")
        seen.visit(parse(f"async def f():\n await {call}"))
        assert seen.found == {"x.py:f"}, call
    seen = Waits("x.py")
    seen.visit(parse("async def f():\n await in_thread(lambda: e.wait(), limit_s=None)"))
    assert seen.found == {"x.py:f"}


def test_a_limit_that_is_taken_back_is_none_for_what_is_inside() -> None:
    entered = "async with asyncio.timeout(1) as t, lock:\n  t.reschedule(None)\n  "
    seen = Waits("x.py")
    seen.visit(parse(f"async def f():\n {entered}await e.wait()\nasync def g():\n {entered}await e.wait(1)"))
    assert seen.found == {"x.py:f"}


def test_a_look_at_a_file_outside_of_a_thread_for_it_is_recognised() -> None:
    looks = (
        "os.stat(p)",
        "opened(p)",
        "file_digest(p)",
        "os.path.isdir(p)",
        "open(p)",
        "Path(p).read_text()",
        "p.exists()",
        "kernel.thing(p)",
    )
    for look in looks:
        seen = Waits("adapters/libvirt/x.py")
        seen.visit(parse(f"async def f(self):\n await self._query.run(lambda conn: {look})"))
        assert seen.found == {"adapters/libvirt/x.py:f"}, look
        for elsewhere in ("on_disk(lambda: {}, p)", "in_thread(lambda: {}, limit_s=1)"):
            seen = Waits("adapters/libvirt/x.py")
            seen.visit(parse(f"async def f():\n await {elsewhere.format(look)}"))
            assert seen.found == set(), look
    for file in ("adapters/vif/x.py", "kit/x.py"):
        seen = Waits(file)
        seen.visit(parse("def f():\n os.stat(p)"))
        assert seen.found == {f"{file}:f"}
    seen = Waits("adapters/libvirt/x.py")
    seen.visit(parse("def f():\n libvirt.open(uri)\n kernel.cpus()\n self.exists()\n conn.lookup(p)"))
    assert seen.found == set()
