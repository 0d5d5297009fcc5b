"""The controller's records about its users: their tokens, and what they asked for."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Data, Value
from sterna.domain.tokens import Token


class Asked(Value):
    """A request that changes something, as it was asked."""

    at: str
    """ISO 8601 UTC, the controller's clock."""
    request: str
    """Id of the request."""
    actor: str
    role: str
    origin: str
    """Where it came from: an IP address, or the process on this machine."""
    action: str
    target: str
    """What it is about: a VM, a host, a migration, a token."""
    body: Data = {}
    """The request's body, as the API takes it."""
    user_id: str = ""
    project_id: str = ""
    """Of a user of Keystone, through the Compute API; '' elsewhere."""


class LogRecord(Value):
    """One line of the audit log."""

    number: int
    """In the order in which they were asked; what pages are made of."""
    asked: Asked
    status: int | None = None
    """HTTP status of the answer; None where none was given, or not yet."""


class LogPage(Value):
    """Which lines to list, newest first."""

    before: int | None = None
    """Only those with a smaller number."""
    limit: int = 50
    actor: str = ""
    action: str = ""
    target: str = ""
    request: str = ""
    since: str = ""
    """ISO 8601 UTC: only those from then on."""


class AccessRecords(Protocol):
    """Tokens and the audit log. Every method is one transaction and raises as `ports.fleet.Fleet` does.

    The log is append-only: no method changes a line. Old ones are removed (`ports/pruning.py`).
    """

    async def add_token(self, token: Token) -> None:
        """Raises Conflict where the name is taken."""

    async def tokens(self) -> list[Token]:
        """All of them, by name."""

    async def token(self, id: str) -> Token | None:
        """The token of that ID."""

    async def remove_token(self, name: str) -> Token:
        """It is valid no longer. Raises NotFound."""

    async def log_asked(self, asked: Asked) -> None:
        """Written before what was asked for is done."""

    async def log_answered(self, request: str, status: int, at: str) -> None:
        """Written before the answer is sent."""

    async def log_page(self, page: LogPage) -> list[LogRecord]:
        """Newest first."""
