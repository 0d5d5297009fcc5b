"""Connections to libvirtd so that a guest whose QEMU hangs holds up the calls about itself only.

libvirtd answers a call about such a guest after 30 s (another call holds it), or never.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from sterna.adapters.libvirt.session.connection import Connect, Connection
from sterna.domain.errors import SternaError

T = TypeVar("T")

KEPT = 2
"""Unused connections that are kept open for the next calls."""


class _Lane:
    """One connection with its thread, while one guest has it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.calls = 0


class PerGuest:
    """Calls about one guest run in order, on one connection; those about different guests run side by side.

    To be used from one event loop.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._name = uri, name
        self._taken: dict[str, _Lane] = {}
        self._free: list[Connection] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, act: Callable[[Connect], T], of: str = "") -> T:
        """`act` with an open connection. `of`: the guest it is about; "": the host.

        A caller that is cancelled stops waiting; the call goes on. Raises what `Connection.run` raises.
        """
        lane = self._lane(of)
        lane.calls += 1
        try:
            return await lane.connection.run(act)
        except asyncio.CancelledError:
            self._await_end(lane)
            raise
        finally:
            self._done(lane)

    def close(self) -> None:
        """Close them all, after what is queued. Not waited for."""
        self._closed = True
        for task in self._waiting:
            task.cancel()
        for connection in [*self._free, *(lane.connection for lane in self._taken.values())]:
            connection.close()
        self._free.clear()
        self._taken.clear()

    def _lane(self, of: str) -> _Lane:
        if of not in self._taken:
            self._give_back()
            connection = self._free.pop() if self._free else Connection(self._uri, self._name)
            self._taken[of] = _Lane(connection)
        return self._taken[of]

    def _await_end(self, lane: _Lane) -> None:
        """The call goes on, and may hang. Until it has ended, its connection is not given to others."""
        if self._closed:
            return
        lane.calls += 1
        task = asyncio.create_task(self._ended(lane))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _ended(self, lane: _Lane) -> None:
        try:
            with contextlib.suppress(SternaError):
                await lane.connection.run(lambda _conn: None)
        finally:
            self._done(lane)

    def _done(self, lane: _Lane) -> None:
        lane.calls -= 1
        if not self._closed:
            self._give_back()

    def _give_back(self) -> None:
        """The unused connections. One with a thread that hangs stays its guest's own.

        Once that thread has come back, the next call about any guest gives it back: this one may be gone.
        """
        for of, lane in list(self._taken.items()):
            if lane.calls or lane.connection.hanging:
                continue
            del self._taken[of]
            if len(self._free) < KEPT:
                self._free.append(lane.connection)
            else:
                lane.connection.close()
