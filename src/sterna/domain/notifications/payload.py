"""What a notification says about a migration, an operation or a host: `data` of a message. Unknown is null."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from sterna.domain.model import Value

LONGEST_TEXT = 2_000
"""Characters of a text in a notification."""


def clipped(text: str) -> str:
    """A text of a length that is sent."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


Text = Annotated[str, AfterValidator(clipped)]


class VmData(Value):
    """The VM of a migration."""

    uuid: str
    """Its UUID."""
    name: str
    """Its name in libvirt."""


class MigrationData(Value):
    """A migration after the event."""

    id: str
    """Its UUID."""
    vm: VmData
    """Its VM: `uuid` and `name`."""
    source: str
    """The host it comes from."""
    destination: str
    """The host it goes to."""
    status: str
    """Its status, as `sterna show` prints it."""
    previous_status: str
    """Its status before the event."""
    reason: Text
    """Why it is in this status; may be empty."""
    error: Text | None
    """What turned it back. Null where nothing did."""
    operation: str | None
    """The operation that has started it. Null where a user has."""
    requested_by: str
    """Who has requested it, as `token:NAME` or `user:NAME`; may be empty."""
    created_at: str | None
    """ISO 8601 UTC, the source's clock."""
    finished_at: str | None
    """ISO 8601 UTC, the source's clock. Null while it has not ended."""


class OperationData(Value):
    """An operation after the event."""

    id: str
    """Its UUID."""
    kind: str
    """`drain` or `rolling`."""
    hosts: tuple[str, ...]
    """The hosts that it empties, by name."""
    status: str
    """Its status, as `sterna operations` prints it."""
    previous_status: str | None
    """Its status before the event. Null where it has just started."""
    reason: Text
    """What the user who has started it wrote; may be empty."""
    requested_by: str
    """Who has started it."""
    changed_by: str
    """Who has changed its status last. Empty where nobody has."""
    paused_because: Text
    """Why it has paused by itself. Empty where it has not."""
    waits_for: Text
    """What keeps it from its end. Empty where nothing does."""
    vms_left: int
    """VMs that cannot be migrated, or were not."""
    promised_end: str | None
    """ISO 8601 UTC. Null where nothing is promised, or it has ended."""
    previous_promised_end: str | None
    """The one that was reported before. Null where none was."""
    late_s: float | None
    """By how many seconds the promise misses the deadline. Null where it does not."""
    created_at: str | None
    """ISO 8601 UTC, a controller's clock."""
    ended_at: str | None
    """ISO 8601 UTC, a controller's clock. Null while it has not ended."""


class HostData(Value):
    """A host after the event."""

    name: str
    """Its name."""
    reason: Text
    """What is known about the cause; may be empty."""
