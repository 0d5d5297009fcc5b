"""Which hosts are enrolled, read from the CA's register."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from sterna.adapters.identity.authority import Authority
from sterna.domain.errors import SternaError, Temporary
from sterna.domain.trust.enrolment import EnrolledHost, Register, hosts_of
from sterna.domain.trust.revocation import RevokedList, number_of, removed_hosts
from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

READ_EVERY_S = 2.0
"""A host that was removed is believed so much longer."""
READ_S = 10.0
"""The CA's folder is on a local disk."""


class EnrolledHosts:
    """Implements ports.identity.Enrolment on the machine that has the CA."""

    def __init__(self, authority: Authority) -> None:
        """Raises BadRequest or NotFound for a register that cannot be read."""
        self._authority = authority
        self._revoked: RevokedList | None = None
        self._known = self._of(authority.register())
        self._read_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None
        self._trouble = ""

    def known(self) -> Mapping[str, EnrolledHost]:
        """All hosts by name, as of READ_EVERY_S ago, or of the question before. What cannot be read stays as it was
        last."""
        if self._reading is None and time.monotonic() - self._read_at >= READ_EVERY_S:
            self._reading = asyncio.get_running_loop().create_task(self._refresh(), name="enrolled-hosts")
        return self._known

    def revoked(self) -> RevokedList | None:
        """The list of revoked certificates, as old as what `known` answers; None while nothing was revoked."""
        return self._revoked

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        """The same, as of now. Raises Temporary."""
        try:
            self._known = await in_thread(self._read, name="sterna-ca", limit_s=READ_S)
        except (SternaError, TimeoutError) as error:
            why = error.message if isinstance(error, SternaError) else str(error)
            self._say(why)
            raise Temporary(
                "the CA's register cannot be read now", fix="see the log of the controller that has the CA"
            ) from error
        self._say("")
        return self._known

    def _read(self) -> dict[str, EnrolledHost]:
        return self._of(self._authority.register())

    def _of(self, register: Register) -> dict[str, EnrolledHost]:
        """Signs another list only where there is something new in it."""
        present = number_of(register), removed_hosts(register)
        if self._revoked is None or (self._revoked.number, self._revoked.removed) != present:
            self._revoked = self._authority.revoked_in(register)
        return hosts_of(register)

    async def _refresh(self) -> None:
        try:
            await self.hosts()
        except Temporary:
            pass  # it has been said
        finally:
            self._read_at, self._reading = time.monotonic(), None

    def _say(self, trouble: str) -> None:
        """Once for each trouble."""
        if trouble and trouble != self._trouble:
            log.error("the CA's register cannot be read: enrolled hosts are as last known", why=trouble)
        self._trouble = trouble
