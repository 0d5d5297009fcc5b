"""What is removed from the controller's records when it is old enough."""

from __future__ import annotations

from typing import Protocol


class PruneRecords(Protocol):
    """Every method is one short transaction and raises as `ports.fleet.Fleet` does. Several controllers may do this
    at once. `before`: ISO 8601 UTC, the controllers' clock."""

    async def prune_migrations(self, before: str, spare: int) -> int:
        """Remove some of the migrations that were closed before then, with their entries; how many. 0: there are no
        more.

        Not the newest `spare` of those that were completed, nor one that still holds a VM, or that an operation
        waits for.
        """

    async def old_operations(self, before: str) -> list[str]:
        """Ids of the operations that ended before then; none that is the newest of one of its hosts, and none that
        still keeps one closed: they can be undone."""

    async def prune_operation(self, id: str, before: str) -> bool:
        """Remove it with its attempts, if it has ended before then and nothing else was asked of it since."""

    async def prune_log(self, before: str) -> int:
        """Remove some of the lines of the audit log that are older, with their answers; how many. 0: there are no
        more. It must not be asked for lines of the last 30 days: the database itself protects them."""

    async def prune_endpoints(self, before: str) -> int:
        """Remove endpoints of notifications that no controller has had in its settings since then, with all that
        waits for them; how many."""
