"""The tokens that checks leave beside disks for a moment, and the sweeper for those a crash or an error left there.

A check has no journal (nothing may be accepted yet), so its tokens carry this host in their name: whatever has it
and belongs to no check of this life may go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from uuid import uuid4

import structlog

from sterna.domain.claims import inside
from sterna.domain.errors import SternaError
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.hypervisor import Descriptions
from sterna.ports.storage import TokenSweeper

SWEEP_AGAIN_S = 5.0

log = structlog.get_logger(__name__)


class CheckTokens:
    """Names for tokens, and the task that sweeps what was left: when the agent starts, and after an error."""

    def __init__(self, host: str, guests: Descriptions, sweeper: TokenSweeper, clock: Clock) -> None:
        self._guests, self._sweeper, self._clock = guests, sweeper, clock
        self._prefix = f"check-{sha256(host.encode()).hexdigest()[:8]}-"
        self._in_use: set[str] = set()
        self._dirty = asyncio.Event()
        self._dirty.set()  # the agent may have been killed
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A token for one check; an error inside may have left it beside a disk."""
        token = f"{self._prefix}{uuid4()}"
        self._in_use.add(token)
        try:
            yield token
        except BaseException:
            self._dirty.set()
            raise
        finally:
            self._in_use.discard(token)

    def is_left_over(self, token: str) -> bool:
        """Did a check of this host leave it, and does none of this life use it?"""
        return token.startswith(self._prefix) and token not in self._in_use

    async def sweep_beside(self, path: str) -> None:
        """Remove what old checks of this host have left beside this path. Raises Temporary, Permanent."""
        await self._sweeper.sweep_tokens(path, self._prefix, frozenset(self._in_use))

    def start(self) -> None:
        """Sweep now, and whenever there is a reason."""
        self._task = asyncio.create_task(self._sweep_for_ever(), name="sweep tokens")

    async def stop(self) -> None:
        """Sweep no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                with own_cancellation_only():
                    await self._sweep()
            except Exception as error:
                bug = not isinstance(error, SternaError)
                log.info("tokens of old checks cannot be swept yet", error=str(error), exc_info=bug)
                self._dirty.set()
                await self._clock.sleep(SWEEP_AGAIN_S)

    async def _sweep(self) -> None:
        """Beside every disk and TPM of every VM. Raises the first error, after all the others were tried."""
        failed: Exception | None = None
        for summary in await self._guests.vms():
            try:
                with own_cancellation_only():
                    vm = await self._guests.vm(summary.uuid)
            except Exception as error:
                failed = failed or error
                continue
            files = (path for d in (*vm.disks, *vm.cold) for path in d.files)
            for path in {*vm.written, *files, *(path for state in vm.firmware for path in inside(state))}:
                try:
                    with own_cancellation_only():
                        await self._sweeper.sweep_tokens(path, self._prefix, frozenset(self._in_use))
                except Exception as error:
                    failed = failed or error
        if failed is not None:
            raise failed
