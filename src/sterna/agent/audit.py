"""`audit`: the leftovers of this host, which no open migration owns: explained, and removed where that is safe.

Called by the controller, which knows which other hosts there are (`controller/intents/audit.py`).
"""

from __future__ import annotations

import structlog

from sterna.agent.audit_context import Act, AuditContext, Finder, Found, Messages
from sterna.agent.leftovers import FINDERS
from sterna.agent.tokens import CheckTokens
from sterna.domain.audit import AUDIT_S, REPAIR_S, Leftover, Safety
from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.kit.tasks import all_of
from sterna.kit.waiting import within
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request

KIND_S = 20.0
"""To find all of one kind, where they are looked for one after the other: each repair may bring up others."""
LATER_S = 2.0
"""What is examined one by one is given up first, and reported as not examined."""

log = structlog.get_logger(__name__)


class Audit:
    """One host's audit."""

    def __init__(
        self,
        host: HostPorts,
        journal: Journal,
        client: RpcClient,
        tokens: CheckTokens,
        messages: Messages,
    ) -> None:
        self._host, self._journal, self._client, self._tokens = host, journal, client, tokens
        self._messages = messages

    async def audit(self, request: Request) -> Data:
        """`audit {others, silent, repair}`: all leftovers; with `repair` those proven safe are removed. It ends
        before its caller gives up: what could not be examined by then is reported."""
        clock, repair = self._host.clock, bool(request.params.get("repair"))
        audit = AuditContext(
            host=self._host,
            journal=self._journal,
            client=self._client,
            tokens=self._tokens,
            others=tuple(str(h) for h in request.params.get("others", ())),
            silent=tuple(str(h) for h in request.params.get("silent", ())),
            until_ms=clock.monotonic_ms() + (REPAIR_S if repair else AUDIT_S) * 1000,
            messages=self._messages,
        )
        if repair:
            leftovers = [one for find in FINDERS for one in await self._repaired_of(find, audit)]
        else:
            found = await all_of(_found_by(find, audit) for find in FINDERS)
            leftovers = [one.leftover for kind in found for one in kind]
        return {"leftovers": [leftover.model_dump(mode="json") for leftover in leftovers]}

    async def _repaired_of(self, find: Finder, audit: AuditContext) -> list[Leftover]:
        return [await self._repaired(find, audit, one) for one in await _found_by(find, audit.shortly(KIND_S))]

    async def _repaired(self, find: Finder, audit: AuditContext, found: Found) -> Leftover:
        """Look once more, then remove it; what was done is in the answer."""
        leftover = found.leftover
        if leftover.safety is not Safety.SAFE:
            return leftover.model_copy(update={"done": "left alone"})
        clock = audit.host.clock
        try:
            again = [f for f in await _found_by(find, audit.shortly(KIND_S)) if f.leftover == leftover]
            if not again or again[0].act is None:
                return leftover.model_copy(update={"done": "not removed: it has changed since"})
            await within(clock, audit.left_s + LATER_S, _done(again[0].act))
        except TimeoutError:
            return leftover.model_copy(update={"done": "unknown: it did not finish during this audit"})
        except SternaError as error:
            return leftover.model_copy(update={"done": f"left alone: {error.message}"})
        log.warning("leftover removed", kind=leftover.kind, subject=leftover.subject, why=leftover.why)
        return leftover.model_copy(update={"done": "done"})


async def _found_by(find: Finder, audit: AuditContext) -> list[Found]:
    """All of one kind; or that it could not be looked for."""
    try:
        return await within(audit.host.clock, audit.left_s + LATER_S, find(audit))
    except TimeoutError:
        why = "no answer during this audit"
    except SternaError as error:
        why = error.message
    return [Found(audit.not_looked_at(find.__name__.replace("_", " "), audit.host.name, why))]


async def _done(act: Act) -> None:
    await act()
