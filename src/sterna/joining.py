"""A host joins; agents and controllers renew their certificates once two thirds of their lives are over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import structlog

from sterna.domain.errors import BadRequest, SternaError, Unreachable
from sterna.domain.trouble import Trouble
from sterna.domain.trust.certificates import ending, is_due, warned_at
from sterna.domain.trust.join_token import JoinToken
from sterna.domain.trust.joining import JoinRequest
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock
from sterna.ports.identity import CertificateIssuer, OwnIdentity

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 3600.0
"""How often it is looked whether the certificate is due, and tried again where renewing failed: a month is left."""

_RENEWING, _SHOWING = "renewing", "showing"
FILES_S = 15.0
"""Longer than a command that changes the folder is waited for."""

T = TypeVar("T")


async def join(
    token: JoinToken, desk: CertificateIssuer, own: OwnIdentity, clock: Clock, fingerprint_of: Callable[[str], str]
) -> None:
    """Get the first certificate for this token. May be repeated with the same token.

    Raises BadRequest where the server's CA is not the token's: then nothing has been sent to it.
    """
    ca = await desk.ca()
    found = fingerprint_of(ca)
    if found != token.fingerprint:
        raise BadRequest(
            f"the server's CA has the fingerprint {found}, the token expects {token.fingerprint}: nothing was sent",
            fix="check that the address is right; somebody may be between this host and the controller",
        )
    request = JoinRequest(host=token.host, secret=token.secret, request=own.request(token.host))
    own.accept(await desk.join(request, ca), token.host, token.fingerprint, clock.now())


async def _of_files(act: Callable[[], T]) -> T:
    """In a thread: a command may hold the folder for seconds, and a disk may hang. Raises Unreachable."""
    try:
        return await in_thread(act, name="sterna-renewal", limit_s=FILES_S)
    except TimeoutError as error:
        fix = "check that the disk of the identity's folder answers"
        raise Unreachable(f"the files of its own certificate: {error}", fix=fix) from error


class _Failing(NamedTuple):
    """Something that is tried again."""

    since: datetime
    why: str
    fix: str


class Watch:
    """Looks after the certificate of this process. `show` is called for the one in force when the process has
    started, and for each that takes its place; again, where that failed."""

    renewed_here = False

    def __init__(
        self, validity: Callable[[], tuple[datetime, datetime]], clock: Clock, show: Callable[[], None], fix: str
    ) -> None:
        """`fix`: what somebody does about one that expires."""
        self._validity, self._clock, self._show, self.fix = validity, clock, show, fix
        self._present: tuple[datetime, datetime] | None = None
        """The validity of the one in force, as of the last look."""
        self._shown: tuple[datetime, datetime] | None = None
        """The same of the one for which `show` has returned. An earlier life may have been killed behind a renewal:
        so there is none at first."""
        self._failing: dict[str, _Failing] = {}

    async def look(self) -> bool:
        """Renew it if it is due here, and show the one in force if it has not been shown. Raises SternaError where
        that fails: either is done where the other cannot be. The present one stays in force."""
        try:
            due = await self._noted(_RENEWING, self._renewed_if_due())
        except Exception:
            await self._noted(_SHOWING, self._shown_if_new())
            raise
        await self._noted(_SHOWING, self._shown_if_new())
        return due

    @property
    def valid_until(self) -> datetime | None:
        """The end of the certificate in force, as of the last look; None before the first."""
        return self._present[1] if self._present is not None else None

    def warning(self) -> Trouble | None:
        """What somebody should see to while all still works; None where that is nothing."""
        told = [one for one in (self._ending(), self._unused()) if one is not None]
        if not told:
            return None
        why, fix = "; ".join(one.why for one in told), "; ".join(one.fix for one in told if one.fix)
        return Trouble(why=why, fix=fix, since=min(one.since for one in told))

    async def run(self) -> None:
        """Look every LOOK_EVERY_S seconds, until cancelled."""
        while True:
            try:
                with own_cancellation_only():
                    await self.look()
            except SternaError as e:
                log.warning("this process's certificate is not renewed and in use yet", why=e.message, fix=e.fix)
            except Exception:
                log.exception("renewing this process's certificate failed unexpectedly")
            if (ends := self._ending()) is not None:
                log.error("this process's certificate expires", why=ends.why, fix=ends.fix)
            await self._clock.sleep(LOOK_EVERY_S)

    def _ending(self) -> Trouble | None:
        if self._present is None or not (why := ending(*self._present, self._clock.now())):
            return None
        failing = self._failing.get(_RENEWING)
        if failing is not None:
            why = f"{why}; renewing it has failed since {_words(failing.since)}: {failing.why}"
        elif not self.renewed_here:
            why = f"{why}; nothing here renews it"
        since = warned_at(*self._present).isoformat(timespec="seconds")
        return Trouble(why=why, fix=failing.fix if failing is not None else self.fix, since=since)

    def _unused(self) -> Trouble | None:
        if (failing := self._failing.get(_SHOWING)) is None:
            return None
        why = f"its certificate is not in use everywhere since {_words(failing.since)}: {failing.why}"
        return Trouble(why=why, fix=failing.fix, since=failing.since.isoformat(timespec="seconds"))

    async def _noted(self, what: str, act: Awaitable[T]) -> T:
        """Its result. Why it fails, and since when, is kept."""
        try:
            result = await act
        except Exception as error:
            before = self._failing.get(what)
            since = before.since if before is not None else self._clock.now()
            failing = _Failing(since, str(error), "this is a bug; see the log")
            if isinstance(error, SternaError):
                failing = _Failing(since, error.message, error.fix)
            self._failing[what] = failing
            raise
        self._failing.pop(what, None)
        return result

    async def _renewed_if_due(self) -> bool:
        return False

    async def _shown_if_new(self) -> None:
        self._present = await _of_files(self._validity)
        if self._present != self._shown:
            await _of_files(self._show)
            self._shown = self._present


class Renewal(Watch):
    """Renews it as well, while the process runs."""

    renewed_here = True

    def __init__(self, desk: CertificateIssuer, own: OwnIdentity, clock: Clock, show: Callable[[], None]) -> None:
        super().__init__(own.validity, clock, show, "find out why it is not renewed, in this process's log")
        self._desk, self._own = desk, own

    async def _renewed_if_due(self) -> bool:
        due = is_due(*await _of_files(self._own.validity), self._clock.now())
        if due:
            await self._renew()
        return due

    async def _renew(self) -> None:
        own, now = self._own, self._clock.now()
        name, trusted, ca = await _of_files(lambda: (own.name(), own.fingerprint(), own.ca()))
        answer = await self._desk.renew(await _of_files(own.renewal), ca)
        await _of_files(lambda: own.accept(answer, name, trusted, now))
        _, until = await _of_files(own.validity)
        log.info("this process's certificate was renewed", until=f"{until:%Y-%m-%d}")


def _words(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
