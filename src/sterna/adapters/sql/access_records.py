"""Tokens and the audit log in the controller's records: a part of `SqlFleet`."""

from __future__ import annotations

from sterna.adapters.sql import access_statements as access
from sterna.adapters.sql.transactions import Transactions
from sterna.domain.tokens import Token
from sterna.ports.access import Asked, LogPage, LogRecord


class SqlAccess(Transactions):
    """Who may use the API, and what they have asked for."""

    async def add_token(self, token: Token) -> None:
        """Raises Conflict."""
        await self._write(access.add_token, token)

    async def tokens(self) -> list[Token]:
        """All of them, by name."""
        return await self._run(access.all_tokens)

    async def token(self, id: str) -> Token | None:
        """The token of that ID."""
        return await self._run(access.token, id)

    async def remove_token(self, name: str) -> Token:
        """Raises NotFound."""
        return await self._write(access.remove_token, name)

    async def log_asked(self, asked: Asked) -> None:
        """A line of the audit log."""
        await self._write(access.log_asked, asked)

    async def log_answered(self, request: str, status: int, at: str) -> None:
        """How a line of the audit log was answered."""
        await self._write(access.log_answered, request, status, at)

    async def log_page(self, page: LogPage) -> list[LogRecord]:
        """Newest first."""
        return await self._run(access.log_page, page)
