"""The migration's states, who owns the guest in each, and which may follow which (docs/reference/statuses.md)."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Status of a migration."""

    QUEUED = "queued"
    PREPARING = "preparing"
    MIGRATING = "migrating"
    POST_COPY = "post-copy"
    RECOVERING = "recovering"
    POST_MIGRATING = "post-migrating"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling-back"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ERROR = "error"

    @property
    def final(self) -> bool:
        """Nothing more will happen by itself."""
        return self in FINAL

    @property
    def owner(self) -> str:
        """Which host owns the guest: `source`, `destination`, or `undecided` (ask both)."""
        return OWNER[self]


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

OWNER: dict[Status, str] = {
    Status.QUEUED: "source",
    Status.PREPARING: "source",
    Status.MIGRATING: "source",  # until the pivot is seen; the probes decide, not this table
    Status.POST_COPY: "destination",
    Status.RECOVERING: "destination",
    Status.POST_MIGRATING: "destination",
    Status.COMPLETED: "destination",
    Status.ROLLING_BACK: "source",
    Status.FAILED: "source",
    Status.CANCELLED: "source",
    Status.ERROR: "undecided",
}

ALLOWED: dict[tuple[Status, Status], str] = {
    (Status.QUEUED, Status.PREPARING): "the source agent took it up (P1)",
    (Status.PREPARING, Status.MIGRATING): "the destination is ready (M1)",
    (Status.MIGRATING, Status.POST_COPY): "dhost's vCPUs run, source still holds pages",
    (Status.POST_COPY, Status.RECOVERING): "the link broke in post-copy",
    (Status.RECOVERING, Status.POST_COPY): "the link is whole again",
    (Status.MIGRATING, Status.POST_MIGRATING): "the guest runs on dhost, the source's QEMU is gone (M5)",
    (Status.POST_COPY, Status.POST_MIGRATING): "all pages arrived, the source's QEMU is gone",
    (Status.RECOVERING, Status.POST_MIGRATING): "all pages had arrived after all",
    (Status.POST_MIGRATING, Status.COMPLETED): "F9 and F11 are done",
    (Status.QUEUED, Status.ROLLING_BACK): "aborted or refused before it began",
    (Status.PREPARING, Status.ROLLING_BACK): "phase 1 failed or was aborted (R1)",
    (Status.MIGRATING, Status.ROLLING_BACK): "phase 2 failed or was aborted before the switch-over (R1)",
    (Status.ROLLING_BACK, Status.FAILED): "the source is as before and dhost reported R7 (R8)",
    (Status.ROLLING_BACK, Status.CANCELLED): "the same, on a user's word",
    (Status.MIGRATING, Status.RECOVERING): "the link broke as soon as dhost's vCPUs ran",
    (Status.POST_COPY, Status.ERROR): "both hosts were asked and an invariant is in doubt",
    (Status.RECOVERING, Status.ERROR): "both hosts were asked and an invariant is in doubt",
    (Status.ERROR, Status.POST_COPY): "asked again: dhost's vCPUs run, source still holds pages",
    (Status.ERROR, Status.RECOVERING): "asked again: the same, and the link is broken",
    (Status.QUEUED, Status.ERROR): "R0 asked both hosts and an invariant is in doubt",
    (Status.PREPARING, Status.ERROR): "R0 asked both hosts and an invariant is in doubt",
    (Status.MIGRATING, Status.ERROR): "both hosts were asked and an invariant is in doubt",
    (Status.ROLLING_BACK, Status.ERROR): "both hosts were asked and an invariant is in doubt",
    (Status.POST_MIGRATING, Status.ERROR): "both hosts were asked and an invariant is in doubt",
    (Status.ERROR, Status.POST_MIGRATING): "asked again: the guest is dhost's after all",
    (Status.ERROR, Status.ROLLING_BACK): "asked again: the guest is shost's after all",
    (Status.ERROR, Status.MIGRATING): "asked again: libvirt is still copying",
}


def check_transition(old: Status, new: Status) -> str:
    """The reason why `new` may follow `old`.

    Raises ValueError for a transition that is not in the table.
    """
    try:
        return ALLOWED[old, new]
    except KeyError:
        raise ValueError(f"a migration cannot go from {old} to {new}") from None
