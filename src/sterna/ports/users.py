"""A service that knows users: Keystone."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Value


class ExternalUser(Value):
    """The user of a token of such a service."""

    name: str
    """`USER@DOMAIN`."""
    project: str = ""
    """`PROJECT@DOMAIN` that the roles are for; '' where they are for none."""
    roles: tuple[str, ...] = ()
    """As the service calls them."""
    user_id: str = ""
    project_id: str = ""
    """'' where the roles are for no project."""
    expires_at: str
    """ISO 8601."""


class UserDirectory(Protocol):
    """Such a service."""

    async def user(self, token: str) -> ExternalUser | None:
        """None for a token it does not know, or that has expired. Raises Unreachable."""
