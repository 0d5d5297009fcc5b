"""Migrations that have not ended, read page by page: there may be more than one answer of the database has.

One that its host only says there is counts where it holds its VM, and nowhere else: a host writes into its journal
what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.status import Status
from sterna.ports.fleet import Fleet, MigrationRecord, Page

READ_AT_ONCE = 500
UNFINISHED = tuple(status for status in Status if not status.final)


async def under_way(
    fleet: Fleet, statuses: Iterable[Status] = UNFINISHED, *, holding: bool = True
) -> list[MigrationRecord]:
    """Newest first. `holding`: only those that hold their VM. Raises Unreachable."""
    page = Page(statuses=tuple(statuses), limit=READ_AT_ONCE, holding=holding)
    found: list[MigrationRecord] = []
    while read := await fleet.migrations(page):
        found += read
        page = page.model_copy(update={"before": read[-1].number})
    return found
