"""Sessions of browsers: a token is exchanged for a cookie, which opens the pages and nothing else.

A session is in this process, under the hash of its cookie. It has the hash of its token, which is looked up again
at every request: what ends a token ends its sessions. A form is bound to the session that it was made for.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.types import Scope

from sterna.kit.digests import digest_of

COOKIE = "__Host-sterna"
"""A browser keeps one of this name only from an encrypted connection or its own machine, and for one host."""
IDLE_S = 3600.0
"""A session ends so long after the last page that somebody asked for."""
LONGEST_S = 12 * 3600.0
"""It ends so long after the sign-in."""
MOST_OF_ONE = 50
"""Sessions of one token; the oldest one makes room."""


@dataclass
class Session:
    """Somebody who has signed in."""

    token_id: str
    """Of the token in the records; '' for one of the settings."""
    token_digest: str
    begun: float
    seen: float
    """Both by the clock of `Sessions`."""


class Sessions:
    """Those of this process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds, of a clock that only goes forward."""
        self._now, self._key = now, secrets.token_bytes(32)
        self._open: dict[str, Session] = {}

    def begin(self, token_id: str, token_digest: str) -> str:
        """The cookie's value of a new session."""
        self._forget()
        own = [key for key, one in self._open.items() if one.token_digest == token_digest]
        for key in own[: max(0, len(own) - MOST_OF_ONE + 1)]:
            del self._open[key]
        cookie, now = new_cookie(), self._now()
        self._open[digest_of(cookie)] = Session(token_id, token_digest, now, now)
        return cookie

    def find(self, cookie: str, *, used: bool = True) -> Session | None:
        """The session of a cookie. `used`: somebody has asked for a page, so that it lasts longer."""
        session = self._open.get(digest_of(cookie))
        if session is None or self._is_over(session):
            return None
        if used:
            session.seen = self._now()
        return session

    def end(self, cookie: str) -> None:
        """Sign out. Does nothing where it has ended."""
        self._open.pop(digest_of(cookie), None)

    def form_token(self, bound_to: str) -> str:
        """What a form has that was made for this cookie or user: another page cannot know it."""
        return hmac.new(self._key, bound_to.encode("utf-8", "surrogateescape"), sha256).hexdigest()

    def is_form_token(self, shown: str, bound_to: str) -> bool:
        """Was the form made for this cookie or user, by this process?"""
        return hmac.compare_digest(self.form_token(bound_to).encode(), shown.encode("utf-8", "surrogateescape"))

    def _is_over(self, session: Session) -> bool:
        now = self._now()
        return now - session.seen > IDLE_S or now - session.begun > LONGEST_S

    def _forget(self) -> None:
        self._open = {key: one for key, one in self._open.items() if not self._is_over(one)}


def new_cookie() -> str:
    """A value that nobody can guess."""
    return secrets.token_urlsafe(32)


def cookie_of(scope: Scope) -> str:
    """Sterna's cookie in a request; '' where there is none."""
    try:
        found = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def opens(scope: Scope) -> bool:
    """May a session be used here? `/v1` is for programs, which send their token: no page of another site can make a
    browser use it."""
    return not str(scope["path"]).startswith("/v1/")
