"""What a rolling operation asks to do something to an empty host: a webhook, or a command of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sterna.domain.model import Value

Right = Callable[[], float]
"""Seconds for which a request may still be under way; 0 or less: no more. Asked again and again: it grows each time
that the records say that the operation is still this controller's."""


class Notice(Value):
    """What a hook learns of one host. Repeated, it is the same."""

    operation: str
    """Its UUID."""
    host: str
    key: str
    """The same for the same request: whoever has seen it has nothing more to do."""
    reason: str = ""
    """The operator's own words."""
    requested_by: str = ""


class Hooks(Protocol):
    """One controller's, by its settings. An answer means that the request was accepted, not that it was done."""

    def has_command(self) -> bool:
        """Is there a command in the settings?"""

    def against(self, url: str) -> str:
        """Why that address is not called; '' where it is."""

    async def call(self, url: str, notice: Notice, right: Right) -> None:
        """POST it, unless the right to is over by then. Raises Permanent where the address is not allowed or the
        answer is no; Unreachable, also where it may have arrived."""

    async def run(self, notice: Notice, limit_s: float, right: Right) -> None:
        """Run the command to its end. It is ended, with its children, after `limit_s`, when the right to run it is
        over, and when this controller dies or hangs until then. Raises Permanent where there is none or it fails,
        Temporary where it was ended."""
