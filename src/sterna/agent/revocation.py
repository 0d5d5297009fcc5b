"""The list of revoked certificates, handed over by the controller that has the CA.

The beacon says which list is in use, so that the controller hands over a newer one, and does so again where that
failed or the agent was restarted.
"""

from __future__ import annotations

import asyncio

import structlog

from sterna.domain.errors import BadRequest
from sterna.domain.model import Data
from sterna.domain.trust.revocation import from_wire
from sterna.ports.identity import RevokedHere
from sterna.rpc.envelope import Request

log = structlog.get_logger(__name__)


class Revocation:
    """The call `take_revoked`."""

    def __init__(self, here: RevokedHere | None) -> None:
        """`here`: None for a host whose certificate is not of Sterna's own CA."""
        self._here = here
        self._turn = asyncio.Lock()
        self.number = None if here is None else 0
        """Of the list that this process has put to use, 0 for none yet; None where it takes none."""

    async def take_revoked(self, request: Request) -> Data:
        """Call `take_revoked {number, pem, removed}`. The list is believed for its signature, and only if it is not
        older than the one that is here."""
        given = from_wire(request.params)
        if self._here is None:
            fix = 'set enrol = "sterna" in [identity], if its certificate is of that CA'
            raise BadRequest("this host has no certificate of Sterna's own CA", fix=fix)
        async with self._turn:
            self.number = await self._here.take(given)
        log.info("a list of revoked certificates is in use", number=self.number, removed=given.removed)
        return {"number": self.number}
