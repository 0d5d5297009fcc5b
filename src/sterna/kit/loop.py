"""The event loop of Sterna's processes: asyncio's, but a resolver that hangs costs a thread that is left alone.

asyncio resolves names in its default executor, which has few threads, no limit, and is joined at exit. Nor does a
task that hangs keep the process.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

T = TypeVar("T")

ENDING_S = 3.0
"""For what is still there when a process ends."""
RESOLVE_S = 30.0
"""glibc asks each of up to three servers twice, for 5 s; what else nsswitch.conf names may have no limit at all."""


class BoundedNames(asyncio.SelectorEventLoop):
    """Names are resolved within RESOLVE_S, or not at all."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: int) -> Any:
        """As asyncio's. Raises OSError where the resolver fails, TimeoutError where it does not answer."""
        return await in_thread(
            lambda: socket.getaddrinfo(host, port, **hints), name="sterna-names", of=str(host), limit_s=RESOLVE_S
        )


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on such a loop; but tasks that do not end when they are cancelled are left."""
    runner = asyncio.Runner(loop_factory=BoundedNames)
    try:
        return runner.run(main)
    finally:
        left = runner.run(_end_all())
        if left:
            log.warning("exiting although threads still hang", tasks=sorted(left))
        else:
            runner.close()


async def _end_all() -> list[str]:
    """Cancel all other tasks; the names of those that do not end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return []
    _, left = await asyncio.wait(others, timeout=ENDING_S)
    return [task.get_name() for task in left]
