"""One line for each change of a migration's status, each failed try, and each turn back.

Every line has the same fields: `migration`, `vm`, `host` and, where a step is meant, `row` and `step`. So
`journalctl -u sterna-agent | grep ID` follows one migration.
"""

from __future__ import annotations

import structlog

from sterna.domain.journal import Entry, Kind, Migration
from sterna.domain.model import Data

_log = structlog.get_logger(__name__)


def log_entry(migration: Migration, host: str, entry: Entry) -> None:
    """Log what an entry of this host's journal says. Most entries say nothing that an operator must know."""
    log = _log.bind(migration=migration.id, vm=migration.vm_name, host=host)
    data = entry.data
    if entry.kind is Kind.STATUS:
        log.info("status", status=str(data.get("status", "")), reason=str(data.get("reason", "")))
    elif entry.kind is Kind.FAILED:
        error, again = _error(data), not data.get("final")
        log.warning("a step failed", row=entry.row, step=entry.name, again=again, **error)
    elif entry.kind is Kind.COMPENSATING and "forward" in data:
        log.warning("the rollback ends: the guest has arrived", why=str(data["forward"]))
    elif entry.kind is Kind.COMPENSATING:
        log.warning("rolls back", **_error(data))
    elif entry.kind is Kind.CLOSED:
        log.info("closed")


def _error(data: Data) -> dict[str, str]:
    error = data.get("error") or {}
    return {"error": str(error.get("message", "")), "fix": str(error.get("fix", ""))}
