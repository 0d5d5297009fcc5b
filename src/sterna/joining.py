"""A host joins; agents and controllers renew their certificates once two thirds of their lives are over."""

from __future__ import annotations

from collections.abc import Callable
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
    """Renews the certificate of this process while it runs. `renewed` is called after each."""

    def __init__(self, desk: JoinDesk, own: OwnIdentity, clock: Clock, renewed: Callable[[], None]) -> None:
        self._desk, self._own, self._clock, self._renewed = desk, own, clock, renewed
        self._untold = False
        """There is a new certificate, and `renewed` has not returned for it yet."""

    async def look(self) -> bool:
        """Renew it if it is due. Raises SternaError where that fails; the present one stays in force."""
        due = is_due(*await _of_files(self._own.validity), self._clock.now())
        if due:
            await self._renew()
        if self._untold:
            await _of_files(self._renewed)
            self._untold = False
        return due

    async def _renew(self) -> None:
        own, now = self._own, self._clock.now()
        name, trusted, ca = await _of_files(lambda: (own.name(), own.fingerprint(), own.ca()))
        answer = await self._desk.renew(await _of_files(own.renewal), ca)
        self._untold = True  # also where it is written after all, when no caller waits for it any more
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
                log.warning("this process's certificate cannot be renewed yet", why=e.message, fix=e.fix)
            except Exception:
                log.exception("renewing this process's certificate failed unexpectedly")
            await self._clock.sleep(LOOK_EVERY_S)
