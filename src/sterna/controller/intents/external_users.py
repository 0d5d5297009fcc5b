"""Users of another service (Keystone): who they are by their tokens, and their roles here."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime

from sterna.controller.intents.origin_shares import OriginShares
from sterna.domain.access import Actor, UserRole, highest
from sterna.domain.errors import Forbidden, Temporary, Unauthenticated
from sterna.domain.plain_text import printable
from sterna.kit.digests import digest_of
from sterna.ports.clock import Clock
from sterna.ports.users import ExternalUser, UserDirectory

KNOWN_S = 60.0
"""So long a token that was found good is not asked about again, nor noticed to be revoked."""
MOST_KNOWN = 1_000
TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
"""What can be a token at all: nothing else is asked about."""


class ExternalUsers:
    """Of one service."""

    def __init__(self, directory: UserDirectory, clock: Clock, project: str, roles: Mapping[str, UserRole]) -> None:
        """`project`: `PROJECT@DOMAIN`, the only one whose roles count. `roles`: the service's to ours."""
        self._directory, self._clock, self._project, self._roles = directory, clock, project, roles
        self._known: OrderedDict[str, tuple[float, ExternalUser]] = OrderedDict()
        """By the token's hash: until when (monotonic, ms), and who it is."""
        self._asking: dict[str, asyncio.Task[ExternalUser | None]] = {}
        """By the same: whose token it is is being asked."""
        self._shares = OriginShares()

    async def holder(self, token: str, origin: str) -> Actor:
        """`origin`: where the request comes from. Raises Unauthenticated for a token that the service does not
        know, Forbidden for a user without a role here, Unreachable, Temporary."""
        user = await self.user(token, origin)
        name = f"keystone:{printable(user.name)}"
        role = highest(self._roles[one] for one in user.roles if one in self._roles)
        if user.project != self._project or role is None:
            raise Forbidden(
                f"{name} has no role here",
                fix=f"use a token for the project {self._project}, with one of the roles "
                f"{', '.join(sorted(self._roles))}",
            )
        return Actor(name=name, role=role)

    async def user(self, token: str, origin: str) -> ExternalUser:
        """Of whatever project. Raises Unauthenticated for a token that the service does not know, Unreachable;
        Temporary while it is asked about too many others, above all of this origin: anybody may send one."""
        user = await self._user(token, origin) if TOKEN.fullmatch(token) else None
        if user is None or self._has_expired(user):
            raise Unauthenticated("Keystone does not know this token, or it has expired", fix="get a new one")
        return user

    async def _user(self, token: str, origin: str) -> ExternalUser | None:
        key, now_ms = digest_of(token), self._clock.monotonic_ms()
        until_ms, user = self._known.get(key, (0.0, None))
        if user is not None and now_ms < until_ms:
            return user
        self._known.pop(key, None)
        if key not in self._asking:
            if not self._shares.take(origin):
                why = f"Keystone is asked about {len(self._asking)} other tokens"
                raise Temporary(why, fix="try again in a moment", delay_s=1)
            self._asking[key] = asyncio.create_task(self._ask(key, token, origin), name="whose-token")
        return await asyncio.shield(self._asking[key])  # who leaves takes no answer from others

    async def _ask(self, key: str, token: str, origin: str) -> ExternalUser | None:
        try:
            user = await self._directory.user(token)
        finally:
            del self._asking[key]
            self._shares.give_back(origin)
        if user is not None:
            self._known[key] = self._clock.monotonic_ms() + KNOWN_S * 1000, user
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return user

    def _has_expired(self, user: ExternalUser) -> bool:
        try:
            return datetime.fromisoformat(user.expires_at) <= self._clock.now()
        except (TypeError, ValueError):
            return True
