"""One line for each change of a migration's status, each failed try, and each turn back.

Every line has the same fields: `migration`, `vm`, `host` and, where a step is meant, `row` and `step`. So
`journalctl -u sterna-agent | grep ID` follows one migration.
"""

from __future__ import annotations

import structlog

from sterna.domain.entries.base import DirectionChanged, Failed, Failure, StatusSet
from sterna.domain.journal import Entry, Kind, Migration

_log = structlog.get_logger(__name__)
_LOGGED = frozenset({Kind.STATUS, Kind.FAILED, Kind.COMPENSATING, Kind.CLOSED})


def log_entry(migration: Migration, host: str, entry: Entry) -> None:
    """Log an entry of this host's journal, if an operator needs to know of it. Most entries are not logged."""
    if entry.kind not in _LOGGED:
        return
    log = _log.bind(migration=migration.id, vm=migration.vm_name, host=host)
    match entry.kind:
        case Kind.STATUS:
            status = StatusSet.read(entry)
            log.info("status", status=status.status, reason=status.reason)
        case Kind.FAILED:
            failed = Failed.read(entry)
            row, again, error = entry.row, not failed.final, failed.error
            log.warning("a step failed", row=row, step=entry.name, again=again, error=error.message, fix=error.fix)
        case Kind.COMPENSATING:
            _log_direction(log, DirectionChanged.read(entry))
        case Kind.CLOSED:
            log.info("closed")


def _log_direction(log: structlog.stdlib.BoundLogger, changed: DirectionChanged) -> None:
    error = changed.error or Failure()
    if changed.forward is not None:
        log.warning("the rollback ends: the guest has arrived", why=changed.forward)
    else:
        log.warning("rolls back", error=error.message, fix=error.fix)
