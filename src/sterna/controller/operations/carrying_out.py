"""Operations are carried out: looked at again and again, each by the controller that holds it.

At each look what has ended is written down, a plan is made of the fleet as it is, and what may begin now is written
and then begun (`looking.py`). Nothing that matters is only in memory, so any controller goes on where another one
died. Holding keeps two from planning at once. That nothing is done twice does not depend on it: what is written
names the holder's epoch, and an attempt that was given up is never admitted.

Each operation is looked at in a task of its own, with signs of life beside it: one whose plan or whose hosts take
long holds up no other one, and is not taken for abandoned. A look that does not end is given up. All are looked at
every LOOK_S; one of which a migration has got further is looked at sooner (`waking.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from functools import partial
from uuid import uuid4

import structlog

from sterna.controller.leases import LeaseWatch
from sterna.controller.operations.acting import Acting
from sterna.controller.operations.looking import Looks
from sterna.controller.operations.observing import Observer
from sterna.controller.operations.waking import Waking
from sterna.domain.errors import SternaError
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.operations import OperationRecord

log = structlog.get_logger(__name__)

LOOK_S = 2.0
LEASE_MS = 15_000.0
"""A holder that shows no sign of life for so long, by this controller's own clock, has died or is cut off. Seven
looks: one may wait for a database that is slow."""
LONGEST_LOOK_S = 120.0
"""A look at one operation that takes longer is given up: another controller may have more luck."""
_NO_BUS = "the controller that ran it has lost the message bus; another one can continue"


class Operations:
    """One controller's part in them."""

    def __init__(self, fleet: Fleet, observer: Observer, acting: Acting, clock: Clock) -> None:
        self._fleet, self.acting, self._clock = fleet, acting, clock
        self._turns: dict[str, asyncio.Task[None]] = {}
        """Of operations that are being looked at."""
        self.waking = Waking(self._begin_one_look, self._turns, clock)
        acting.on_given_up = self.waking.soon
        self._observer, self._looks = observer, Looks(fleet, observer, acting, self.waking, clock)
        self.between = self._looks.between
        self._holder = str(uuid4())
        self._leases = LeaseWatch(clock)
        """Of operations that others hold."""
        self._held: dict[str, int] = {}
        """Of those that this controller holds: the epoch."""
        self._given_up: dict[str, float] = {}
        """Operations of which a look did not end, and when that was (monotonic ms): others go first."""
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look, until `stop`."""
        self._looking = asyncio.create_task(self._look_for_ever(), name="operations")

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()

    async def stop(self) -> None:
        """Look no more, and leave what is held to another controller. Migrations go on."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self.waking.stop()
        await self.acting.stop()
        await self.between.stop()
        await self._release()

    async def _release(self, why: str = "") -> None:
        """Leave what is held to another controller, and say why in how it stands."""
        await self.waking.stop()
        turns = list(self._turns.values())
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)
        for id, epoch in self._held.items():
            await self._let_go(id, epoch, why)
        self._held.clear()

    async def _let_go(self, id: str, epoch: int, why: str) -> None:
        await self.between.leave(id)  # before another controller may take it
        with contextlib.suppress(SternaError):  # the lease ends by itself
            if why:
                operation = (await self._fleet.operation(id)).model_copy(update={"epoch": epoch})
                await self._looks.stand(operation, operation.standing.model_copy(update={"waits_for": why}))
            await self._fleet.release_operation(id, epoch)

    async def _look_for_ever(self) -> None:
        while True:
            self._wake.clear()
            try:
                with own_cancellation_only():
                    await self.begin_looks()
            except SternaError as error:
                log.info("operations are looked at again later", why=error.message)
            except Exception:
                log.exception("looking at operations failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def look(self) -> None:
        """Once at each operation that has not ended; return when all looks have ended. Raises Unreachable."""
        await self.begin_looks()
        await asyncio.gather(*self._turns.values(), return_exceptions=True)

    async def drained(self) -> None:
        """Wait until nothing is looked at, woken or done any more. For tests."""
        while tasks := [*self._turns.values(), *self.waking.due()]:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.acting.drained()

    async def begin_looks(self) -> None:
        """Begin to look at each operation that is not being looked at. Raises Unreachable.

        Without the bus nothing can be done here, and another controller may have it."""
        if not self._observer.connected():
            await self._release(_NO_BUS)
            return
        unfinished = await self._fleet.unfinished_operations()
        self._forget({one.id for one in unfinished})
        for known in unfinished:
            self._begin_turn(known)

    async def _begin_one_look(self, id: str) -> None:
        """At one that is held here. Raises Unreachable."""
        if id in self._held and self._observer.connected():
            known = await self._fleet.operation(id)
            if not known.status.final:
                self._begin_turn(known)

    def _begin_turn(self, known: OperationRecord) -> None:
        if known.id not in self._turns:
            turn = asyncio.create_task(self._turn(known), name=f"look-{known.id}")
            self._turns[known.id] = turn
            turn.add_done_callback(partial(self._turn_is_over, known.id))

    def _turn_is_over(self, id: str, _: asyncio.Task[None]) -> None:
        self._turns.pop(id, None)

    def _forget(self, unfinished: Collection[str]) -> None:
        self._leases.forget_all_but({*unfinished, *self._turns})
        for known in (self._held, self._given_up):
            for id in known.keys() - set(unfinished) - self._turns.keys():
                del known[id]
        self._looks.forget({*unfinished, *self._turns})
        self.waking.forget({*self._held, *self._turns})

    # ------------------------------------------------------------ one look at one operation

    async def _turn(self, known: OperationRecord) -> None:
        try:
            with own_cancellation_only():
                held = await self._hold(known)
                if held is not None and await self._looked_at(held):
                    self._held.pop(held.id, None)
        except SternaError as error:
            log.info("an operation is looked at again later", operation=known.id, why=error.message)
        except Exception:
            log.exception("an operation cannot be carried out now", operation=known.id)

    async def _looked_at(self, held: OperationRecord) -> bool:
        """Has it ended? Shows signs of life meanwhile. A look that takes too long ends, and so does the holding."""
        beating = asyncio.create_task(self._beat(held), name=f"beat-{held.id}")
        began_ms = self._clock.monotonic_ms()
        try:
            async with asyncio.timeout(LONGEST_LOOK_S):
                return await self._looks.look_at(held)
        except TimeoutError:
            log.warning("a look at an operation did not end", operation=held.id, after_s=LONGEST_LOOK_S)
        finally:
            self.waking.looked_at(held.id, began_ms)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        self._held.pop(held.id, None)
        self._given_up[held.id] = self._clock.monotonic_ms()
        why = f"looking at it took longer than {LONGEST_LOOK_S:g} s; any controller may go on"
        await self._let_go(held.id, held.epoch, why)
        return False

    async def _beat(self, held: OperationRecord) -> None:
        """Until it is cancelled, or another controller has it: then nothing that the look still writes is taken."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(SternaError):
                if await self._fleet.keep_operation(held.id, held.epoch) is None:
                    return

    # ------------------------------------------------------------ the lease

    async def _hold(self, known: OperationRecord) -> OperationRecord | None:
        """The operation, if this controller may carry it out now."""
        if known.holder == self._holder:
            held = await self._fleet.keep_operation(known.id, known.epoch)
        elif self._is_anothers(known) or self._lets_others_go_first(known.id):
            held = None
        else:
            held = await self._fleet.take_operation(known, self._holder)
            if held is not None:
                log.info(
                    "an operation is carried out here", operation=held.id, epoch=held.epoch, status=held.status
                )
        if held is None:
            if self._held.pop(known.id, None) is not None:
                await self.between.leave(known.id)
            return None
        self._leases.forget(held.id)
        self._held[held.id] = held.epoch
        return held

    def _is_anothers(self, known: OperationRecord) -> bool:
        """Does another controller hold it, which shows signs of life?"""
        lease = known.holder, known.epoch, known.beat
        return bool(known.holder) and not self._leases.is_over(known.id, lease, LEASE_MS)

    def _lets_others_go_first(self, id: str) -> bool:
        since = self._given_up.get(id)
        if since is not None and self._clock.monotonic_ms() - since >= LEASE_MS:
            del self._given_up[id]
        return id in self._given_up
