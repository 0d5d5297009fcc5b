"""The login at Keystone: one for all services, ahead of the requests that need it.

keystoneauth would log in within a request, and under a lock. Every other request would wait for it, and the service
that was to be asked would be blamed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sterna.adapters.openstack.errors import meaning
from sterna.domain.errors import Conflict, NotFound, Permanent, Unreachable
from sterna.kit.threads import in_thread

if TYPE_CHECKING:
    from keystoneauth1.identity.v3 import Password
    from keystoneauth1.session import Session

_WHAT = "log in at Keystone"
_WHERE = "check that `auth_url` in `[openstack]` is Keystone's: `http://HOST:5000/v3`"


class Login:
    """The token that all requests of one cloud carry."""

    def __init__(self, auth: Password, session: Session, *, limit_s: float) -> None:
        """`auth` must not renew its token by itself (`reauthenticate`)."""
        self._auth, self._session, self._limit_s = auth, session, limit_s
        self._asking: asyncio.Future[str] | None = None

    @property
    def under_way(self) -> bool:
        """Is Keystone being asked now?"""
        return self._asking is not None and not self._asking.done()

    @property
    def roles(self) -> frozenset[str]:
        """Of the present token, by name; empty without one."""
        found = self._auth.auth_ref
        return frozenset(found.role_names or ()) if found is not None else frozenset()

    async def token(self, *, refused: str = "") -> str:
        """One with some life left. `refused`: not this one, which a service has answered with 401.

        Callers that need one during a login wait for the same login. Raises Unreachable, Temporary or Permanent;
        each names Keystone.
        """
        found = self._auth.auth_ref
        lasts = found is not None and not found.will_expire_soon(self._auth.MIN_TOKEN_LIFE_SECONDS)
        if found is not None and lasts and found.auth_token != refused:
            return str(found.auth_token)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(_note_error)
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str:
        def ask() -> str:
            try:
                found = self._auth.get_auth_ref(self._session)
            except Exception as error:
                translated = meaning(error, _WHAT, changing=False)
                if translated is None:
                    raise
                if isinstance(translated, NotFound | Conflict):
                    translated = Permanent(translated.message, fix=_WHERE)
                raise translated from error
            self._auth.auth_ref = found
            return str(found.auth_token)

        try:
            return await in_thread(ask, name="sterna-openstack", of="keystone", limit_s=self._limit_s)
        except TimeoutError as error:
            raise Unreachable(
                f"cannot {_WHAT}: {error}", fix="check that Keystone answers, and how fast"
            ) from error


def _note_error(asking: asyncio.Future[str]) -> None:
    """All callers that waited for it may have left."""
    if not asking.cancelled():
        asking.exception()
