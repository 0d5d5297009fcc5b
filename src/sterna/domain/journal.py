"""What the journal holds: the truth about a migration, one entry per fact, in order, on local disk.

Step entries come in pairs: `intent` before a step acts, `done` or `failed` after it. Everything else is a
`note` (something seen or sent: P11, M3, M5 ...) or a `status` change.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from sterna.domain.model import Data, Value, omitted
from sterna.domain.options import MigrationOptions

JOURNAL_VERSION = 1


EPOCH_LEAP = 2**20
"""One epoch is issued per migration: one that is further than this above the newest that is known is not believed,
or a single false number would leave the VM without a next one."""
LONGEST_PERMIT = 8192
"""In characters, with a certificate."""
LONGEST_REQUESTER = 255
"""The same of who has asked for a migration."""
LARGEST_EPOCH = 2**62
"""What is beyond it in a domain's metadata was not written by Sterna."""


def leaps(epoch: int, newest: int) -> bool:
    """Is it too far above the newest known epoch of its VM to be true?"""
    return epoch > newest + EPOCH_LEAP


class Role(StrEnum):
    """Which side of a migration this journal's host is."""

    SOURCE = "source"
    DESTINATION = "destination"


class Kind(StrEnum):
    """The kind of an entry."""

    ACCEPTED = "accepted"
    INTENT = "intent"
    DONE = "done"
    FAILED = "failed"
    """A try of a step failed: `data.error` on the wire, `data.final` if it is not tried again."""
    COMPENSATING = "turned"
    """From here on the migration is compensated; `data.error` says why. With `data.forward` instead: it was found
    to have passed the pivot, and goes forward again."""
    NOTE = "note"
    STATUS = "status"
    RELEASED = "released"
    """The VM may migrate again (R8, or the end)."""
    CLOSED = "closed"
    """Nothing is left to do for this migration on this host."""


class Migration(Value):
    """One migration, as every host and record has it."""

    id: str
    """UUID chosen by the client; also the idempotency key."""
    epoch: int
    """Per VM, issued by the source's journal, +1 for each migration accepted."""
    vm_uuid: str
    vm_name: str
    source: str
    """Host name."""
    destination: str
    source_address: str = ""
    destination_address: str = ""
    options: MigrationOptions = MigrationOptions()
    created_at: str = ""
    """ISO 8601 UTC, the source's clock."""
    requested_by: str = ""
    """The user who requested it from the API, `token:NAME` or `user:NAME`; '' where that is not known."""
    permit: str = omitted("")
    """Proves that a controller has asked for it (`trust/permits.py`); '' where controllers have no certificates."""

    @property
    def network_hosts(self) -> tuple[str, str]:
        """Source and destination as the cloud's services call them (agreed when it was accepted)."""
        source, destination = self.options.network_hosts or ("", "")
        return source or self.source, destination or self.destination

    def as_asked(self, asked: Migration) -> Migration:
        """This one, as its source reports it, with what a controller asked for as that controller asked for it. The
        source adds to that what only it knows."""
        added = {name: getattr(self.options, name) for name in ("memory_bytes", "network_hosts")}
        options = asked.options.model_copy(update=added)
        own = {"vm_name": asked.vm_name, "requested_by": asked.requested_by, "options": options}
        return self.model_copy(update=own)

    def is_about_the_same(self, other: Migration) -> bool:
        """The same VM between the same hosts, under the same id?"""
        ours, theirs = ((m.id, m.vm_uuid, m.source, m.destination) for m in (self, other))
        return ours == theirs


class Entry(Value):
    """One line of a journal."""

    v: int = JOURNAL_VERSION
    seq: int
    """Position in this host's journal, from 1, without order across hosts."""
    migration_id: str
    epoch: int
    role: Role
    kind: Kind
    row: str = ""
    """Row of the protocol, `P9`, where the entry is about one."""
    name: str = ""
    """The step's or note's name in words."""
    at: str
    """ISO 8601 UTC with ms, this host's clock: for people; never subtracted across hosts."""
    mono_ms: float = Field(allow_inf_nan=False)
    """This host's monotonic clock, for durations within one agent's life."""
    boot: str
    """Random id of the agent's life: mono_ms compares only within one."""
    data: Data = {}


def accepted_migration(entry: Entry) -> Migration | None:
    """The migration an ACCEPTED entry carries, with the epoch it was given; None for any other entry."""
    return Migration.model_validate(entry.data) if entry.kind is Kind.ACCEPTED else None
