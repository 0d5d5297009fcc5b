"""What a rolling operation asks to do something to an empty host: a webhook, or a command of the settings."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Value


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

    async def call(self, url: str, notice: Notice) -> None:
        """POST it. Raises Permanent where the address is not allowed or the answer is no; Unreachable, also where
        it may have arrived."""

    async def run(self, notice: Notice, limit_s: float) -> None:
        """Run the command to its end. Raises Permanent where there is none or it fails, Temporary after
        `limit_s`."""
