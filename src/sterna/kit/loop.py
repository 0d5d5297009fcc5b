"""The event loop of Sterna's processes: asyncio's, but a resolver that hangs costs a thread that is left alone.

asyncio resolves names in its default executor, which has few threads, no limit, and is joined at exit.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from sterna.kit.threads import in_thread

T = TypeVar("T")

RESOLVE_S = 30.0
"""glibc asks each of up to three servers twice, for 5 s; what else nsswitch.conf names may have no limit at all."""


class BoundedNames(asyncio.SelectorEventLoop):
    """Names are resolved within RESOLVE_S, or not at all."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: int) -> Any:
        """As asyncio's. Raises OSError where the resolver says no, TimeoutError where it says nothing."""
        return await in_thread(
            lambda: socket.getaddrinfo(host, port, **hints), name="sterna-names", of=str(host), limit_s=RESOLVE_S
        )


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=BoundedNames) as runner:
        return runner.run(main)
