"""What a host's journal may change about a VM in the controller's records. Pure.

A host writes into its own journal what it likes, also migrations that there never were. So the VM must be where
such a migration says that it begins, and a destination's word needs the source's. A host also lists VMs as it
likes. So no other host may have the VM where no controller is known to have asked for the migration; and what is
stored of such migrations is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.trust.bounds import Load

MOST_REPORTED = 5_000
"""Migrations from one host's journal that no controller is known to have asked for. Only records that were lost
have so many: an agent keeps its last thousand."""
MOST_REPORTED_BYTES = 256 * 2**20
"""Of these migrations and their entries: ten times what an agent keeps."""
MOST_BYTES_OF_A_HALF = 64 * 2**20
"""Of one host's entries about one migration, whoever has asked for it. 20 kB are usual."""


class Place(Enum):
    """What becomes of an entry."""

    STORED = auto()
    APPLIED = auto()
    """It changes the records, and is not stored."""
    DROPPED = auto()


def is_full(reported: Load) -> bool:
    """Is another migration of a host not stored? `reported`: what there is of this host's migrations that no
    controller is known to have asked for."""
    return reported.number >= MOST_REPORTED or reported.size >= MOST_REPORTED_BYTES


def place_for(size: int, half: int, reported: Load | None) -> Place:
    """For an entry of that size. `half`: what is stored of this host about its migration. `reported`: as for
    `is_full`, of the host that has reported it; None where a controller has asked for it."""
    if reported is not None and reported.size + size > MOST_REPORTED_BYTES:
        return Place.DROPPED
    return Place.APPLIED if half + size > MOST_BYTES_OF_A_HALF else Place.STORED


def is_settlement(entry: Entry) -> bool:
    """Does its destination say how a migration ended? It does where its source was declared dead; else the source
    does."""
    return entry.role is Role.DESTINATION and entry.kind is Kind.STATUS


def may_begin_hold(migration: Migration, seen: Mapping[str, GuestState]) -> bool:
    """May it take the VM, although no controller is known to have asked for it? `seen`: what each host says of the
    VM. No other host may say that it has it."""
    return not _others(seen) - {migration.source}


def may_still_hold(migration: Migration, seen: Mapping[str, GuestState]) -> bool:
    """The same of one that has the VM: its destination has it paused until it has arrived."""
    arriving = seen.get(migration.destination) is GuestState.PAUSED
    return not _others(seen) - {migration.source, migration.destination if arriving else ""}


def may_end_there(migration: Migration, seen: Mapping[str, GuestState]) -> bool:
    """May it have brought the VM to its destination, although no controller is known to have asked for it?"""
    return not _others(seen) - {migration.source, migration.destination}


def _others(seen: Mapping[str, GuestState]) -> set[str]:
    """Hosts that say that they have the VM."""
    return {host for host, state in seen.items() if state not in (GuestState.UNKNOWN, GuestState.ABSENT)}


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
