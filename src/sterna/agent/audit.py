"""`audit`: what is left over on this host that no open migration owns, explained; and removed where that is safe.

Called by the controller, which knows which other hosts there are (`controller/intents/audit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from sterna.agent.leftovers import FINDERS, Finder, Found, Surroundings
from sterna.agent.tokens import CheckTokens
from sterna.domain.audit import Leftover, Safety
from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request

log = structlog.get_logger(__name__)


class Audit:
    """One host's audit."""

    def __init__(
        self,
        host: HostPorts,
        journal: Journal,
        client: RpcClient,
        tokens: CheckTokens,
        set_aside: Callable[[], Mapping[str, str]],
    ) -> None:
        self._host, self._journal, self._client, self._tokens = host, journal, client, tokens
        self._set_aside = set_aside

    async def audit(self, request: Request) -> Data:
        """`audit {others, silent, repair}`: all leftovers; with `repair` those proven safe are removed."""
        around = Surroundings(
            host=self._host,
            journal=self._journal,
            client=self._client,
            tokens=self._tokens,
            others=tuple(str(h) for h in request.params.get("others", ())),
            silent=tuple(str(h) for h in request.params.get("silent", ())),
            set_aside=self._set_aside(),
        )
        told: list[Leftover] = []
        for find in FINDERS:
            try:
                found = await find(around)
            except SternaError as error:
                told.append(around.not_looked_at(find.__name__.replace("_", " "), self._host.name, error.message))
                continue
            for one in found:
                told.append(
                    await self._repaired(find, around, one) if request.params.get("repair") else one.leftover
                )
        return {"leftovers": [leftover.model_dump(mode="json") for leftover in told]}

    async def _repaired(self, find: Finder, around: Surroundings, found: Found) -> Leftover:
        """Look once more, then remove it; what was done is in the answer."""
        leftover = found.leftover
        if leftover.safety is not Safety.SAFE:
            return leftover.model_copy(update={"done": "left alone"})
        try:
            again = [f for f in await find(around) if f.leftover == leftover]
            if not again or again[0].act is None:
                return leftover.model_copy(update={"done": "left alone: it has changed meanwhile"})
            await again[0].act()
        except SternaError as error:
            return leftover.model_copy(update={"done": f"left alone: {error.message}"})
        log.warning("left over, removed", kind=leftover.kind, subject=leftover.subject, why=leftover.why)
        return leftover.model_copy(update={"done": "done"})
