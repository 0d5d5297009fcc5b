"""What a host's journal may change about a VM in the controller's records. Pure.

A host writes into its own journal what it likes, also migrations that there never were. So the VM must be where
such a migration says that it begins, and a destination's word needs the source's.
"""

from __future__ import annotations

from sterna.domain.journal import Migration


def may_hold(migration: Migration, vm_host: str | None, holder: str | None) -> bool:
    """May this migration have the VM, as its source says? `vm_host`: where it is recorded; None: nowhere. `holder`:
    the migration that has it."""
    if holder is not None:
        return holder == migration.id
    return vm_host in (None, migration.source)


def may_move(migration: Migration, vm_host: str | None, holder: str | None, *, accepted: bool) -> bool:
    """May the VM be where this migration has brought it, as a host of it says? `accepted`: its source has it."""
    if holder is not None or vm_host is None:
        return holder == migration.id or (holder is None and accepted)
    return accepted and vm_host in (migration.source, migration.destination)
