"""The messages that this process could never handle. `sterna audit` shows them.

In memory: written to the disk, each would cost its receiver more than its sender. The log names them as well.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from sterna.domain.trust.bounds import Pace
from sterna.domain.trust.dead_letters import DeadLetter, letter, with_one_more
from sterna.ports.clock import Clock
from sterna.rpc.sender_limits import SenderRates

_TOLD = Pace(5, 0.1)
"""Lines of the log about one sender: five, and then one in ten seconds."""
_TOLD_AT_ALL = Pace(100, 2)
"""About all of them: on a bus without certificates names are invented."""

_log = structlog.get_logger()


class DeadLetters:
    """Those of one life of a process, the last of each sender."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: tuple[DeadLetter, ...] = ()
        self._number = 0
        self._told, self._told_at_all = SenderRates(clock), SenderRates(clock)

    def add(self, sender: str, what: str, why: str, payload: bytes) -> None:
        """One more. `sender`: as its subject says; `what`: the kind of message, and its method."""
        self._number += 1
        new = letter(self._number, sender, self._clock.now().isoformat(), what, why, payload)
        self._kept = with_one_more(self._kept, new)
        if self._told.admits(sender, _TOLD) and self._told_at_all.admits("", _TOLD_AT_ALL):
            _log.warning(
                "a message cannot be handled", sender=new.sender, what=new.what, why=new.why, size=new.size
            )

    @property
    def kept(self) -> tuple[DeadLetter, ...]:
        """Oldest first."""
        return self._kept

    def forget(self, numbers: Collection[int]) -> None:
        """An operator has seen these."""
        self._kept = tuple(one for one in self._kept if one.number not in numbers)
