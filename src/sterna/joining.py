"""A host joins; agents and controllers renew their certificates once two thirds of their lives are over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import structlog

from sterna.domain.errors import BadRequest, SternaError, Unreachable
from sterna.domain.trust.certificates import is_due
from sterna.domain.trust.join_token import JoinToken
from sterna.domain.trust.joining import JoinRequest
from sterna.kit.tasks import no_leaks
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock
from sterna.ports.identity import JoinDesk, OwnIdentity

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 3600.0
"""How often it is looked whether the certificate is due, and tried again where renewing failed: a month is left."""


FILES_S = 15.0
"""Longer than a command that changes the folder is waited for."""

T = TypeVar("T")


async def join(
    token: JoinToken, desk: JoinDesk, own: OwnIdentity, clock: Clock, fingerprint_of: Callable[[str], str]
) -> None:
    """Get the first certificate for this token. May be repeated with the same token.

    Raises BadRequest where the server's CA is not the token's: then nothing has been sent to it.
    """
    ca = await desk.ca()
    found = fingerprint_of(ca)
    if found != token.fingerprint:
        raise BadRequest(
            f"the server's CA has the fingerprint {found}, the token expects {token.fingerprint}: nothing was sent",
            fix="see that the address is right; somebody may be between this host and the controller",
        )
    request = JoinRequest(host=token.host, secret=token.secret, request=own.request(token.host))
    own.accept(await desk.join(request, ca), token.host, token.fingerprint, clock.now())


async def _of_files(act: Callable[[], T]) -> T:
    """In a thread: a command may hold the folder for seconds, and a disk may hang. Raises Unreachable."""
    try:
        return await in_thread(act, name="sterna-renewal", limit_s=FILES_S)
    except TimeoutError as error:
        fix = "see that the disk of the identity's folder answers"
        raise Unreachable(f"the files of its own certificate: {error}", fix=fix) from error


class Renewal:
    """Renews the certificate of this process while it runs. `show` is called for the one in force when the process
    has started, and for each that takes its place; again, where that failed."""

    def __init__(self, desk: JoinDesk, own: OwnIdentity, clock: Clock, show: Callable[[], None]) -> None:
        self._desk, self._own, self._clock, self._show = desk, own, clock, show
        self._shown: tuple[datetime, datetime] | None = None
        """The validity of the certificate for which `show` has returned. An earlier life may have been killed
        behind a renewal: so there is none at first."""

    async def look(self) -> bool:
        """Renew it if it is due, and show the one in force if it has not been shown. Raises SternaError where that
        fails: either is done where the other cannot be. The present one stays in force."""
        try:
            due = await self._renewed_if_due()
        except Exception:
            await self._shown_if_new()
            raise
        await self._shown_if_new()
        return due

    async def _shown_if_new(self) -> None:
        present = await _of_files(self._own.validity)
        if present != self._shown:
            await _of_files(self._show)
            self._shown = present

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

    async def run(self) -> None:
        """Look every LOOK_EVERY_S seconds, until cancelled."""
        while True:
            try:
                with no_leaks():
                    await self.look()
            except SternaError as e:
                log.warning("this process's certificate is not renewed and in use yet", why=e.message, fix=e.fix)
            except Exception:
                log.exception("renewing this process's certificate failed unexpectedly")
            await self._clock.sleep(LOOK_EVERY_S)
