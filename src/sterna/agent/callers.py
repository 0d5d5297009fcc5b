"""The agent's own check of the sender of each call and cast, before it is handled or journaled."""

from __future__ import annotations

from sterna.domain.errors import BadRequest
from sterna.domain.trust.callers import needs_halves, not_theirs
from sterna.ports.records import Journal
from sterna.rpc.envelope import Request


class Callers:
    """Knows the halves of this host's migrations."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def check(self, request: Request) -> None:
        """Raises BadRequest where this is not the sender's to say."""
        halves = self._halves(request) if needs_halves(request.method) else None
        why = not_theirs(request.method, request.sender, halves)
        if why:
            raise BadRequest(
                f"{request.sender} asks for {request.method}: {why}",
                fix="find out who sends messages on the bus, unless this is a mistake",
            )

    def _halves(self, request: Request) -> tuple[str, str] | None:
        """From this host's journal. Where that does not have the migration yet, from the message: its handler
        checks it, and takes it for a new migration."""
        known = self._journal.get(request.migration_id) if request.migration_id else None
        if known is not None:
            return known[0].source, known[0].destination
        claimed = request.params.get("migration")
        if isinstance(claimed, dict):
            return str(claimed.get("source")), str(claimed.get("destination"))
        return None
