"""Tokens of the API: `sterna_ID_SECRET`. Only the SHA-256 of the whole is kept; the ID finds the record.

A plain hash is enough, because the secret has 256 random bits and cannot be guessed.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sterna.domain.access import UserRole
from sterna.domain.model import Value

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
DIGEST = r"^[0-9a-f]{64}$"
LONGEST_DAYS = 3650
_TOKEN = re.compile(r"sterna_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Token(Value):
    """One token as it is kept: without its secret."""

    id: str
    name: str
    role: UserRole
    digest: str
    created_at: str
    """ISO 8601 UTC."""
    created_by: str
    expires_at: str
    """ISO 8601 UTC."""

    @property
    def actor_name(self) -> str:
        """The user's name in logs and records."""
        return actor_name(self.name)


def actor_name(name: str) -> str:
    """How the holder of the token of that name is called, in logs and records."""
    return f"token:{name}"


def written(id: str, secret: str) -> str:
    """The token, as its holder gets it."""
    return f"sterna_{id}_{secret}"


def id_of(token: str) -> str | None:
    """The ID of a token; None for what is none."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def expiry(now: datetime, days: int) -> datetime:
    """When a token that is made now ends."""
    return now + timedelta(days=days)


def has_expired(token: Token, now: datetime) -> bool:
    """Has it expired? A record whose date cannot be read has."""
    try:
        return datetime.fromisoformat(token.expires_at) <= now
    except (TypeError, ValueError):
        return True
