"""An agent's metrics at one moment: from what it holds in memory, and the open migrations of its journal.

Counting costs a few additions for each entry of the journal. Nothing is asked of libvirt for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

import structlog

from sterna.agent.condition import Condition
from sterna.domain.entries.base import StatusSet
from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Family, family
from sterna.domain.metrics.tally import Count
from sterna.domain.status import FINAL
from sterna.domain.trouble import Trouble
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient
from sterna.rpc.outbox import Outbox

log = structlog.get_logger(__name__)

_OUTCOMES = sorted(status.value for status in FINAL)


class AgentTotals:
    """What one life of an agent has written into its journal."""

    def __init__(self) -> None:
        self._finished = Count(catalogue.AGENT_FINISHED, *((outcome,) for outcome in _OUTCOMES))
        self._failures = Count(catalogue.STEP_FAILURES)

    def wrote(self, entry: Entry) -> None:
        """One more entry."""
        if entry.kind is Kind.FAILED:
            self._failures.add(entry.row or entry.name)
        elif entry.kind is Kind.STATUS and entry.role is Role.SOURCE:
            status = StatusSet.read(entry).status
            if status in _OUTCOMES:
                self._finished.add(status)

    def families(self) -> list[Family]:
        """As of now."""
        return [self._finished.family(), self._failures.family()]


class AgentMetrics:
    """Of one agent."""

    def __init__(self, condition: Condition, journal: Journal, client: RpcClient, outbox: Outbox) -> None:
        self._condition, self._journal, self._client, self._outbox = condition, journal, client, outbox
        self.totals = AgentTotals()
        self.version = ""
        self.expires: Callable[[], datetime | None] = lambda: None
        self.warning: Callable[[], Trouble | None] = lambda: None
        """Of this process's own certificate; set by `bootstrap`, as `version` and `expires`."""

    async def families(self) -> list[Family]:
        """As of now. Raises nothing."""
        return [*self._own(), *self._migrations(), *self.totals.families()]

    def _own(self) -> Iterator[Family]:
        expires, condition = self.expires(), self._condition
        yield family(catalogue.BUILD_INFO, {(self.version, "agent"): 1})
        yield family(catalogue.BUS_CONNECTED, self._client.bus_state().connected)
        yield family(catalogue.CERTIFICATE_EXPIRY, expires.timestamp() if expires is not None else None)
        yield family(catalogue.WARNING, self.warning() is not None)
        yield family(catalogue.DEAD_LETTERS, len(self._client.dead_letters.kept))
        yield family(catalogue.AGENT_USABLE, condition.usable)
        yield family(catalogue.LIBVIRT_RESPONSE, condition.described_in_s)
        yield family(catalogue.OUTBOX_PENDING, self._outbox.pending)
        yield family(catalogue.OUTBOX_REFUSED, len(self._outbox.refused))

    def _migrations(self) -> Iterator[Family]:
        try:
            roles = Counter(dict.fromkeys(Role, 0))
            roles.update(role for _, role in self._journal.open())
        except SternaError as error:
            log.info("the journal is missing in the metrics", why=error.message)
            return
        yield family(catalogue.AGENT_MIGRATIONS, {(role.value,): float(number) for role, number in roles.items()})
