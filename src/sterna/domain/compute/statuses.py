"""Sterna's states in Nova's words."""

from __future__ import annotations

from sterna.domain.model import GuestState, Value, Vm
from sterna.domain.status import Status


class ServerState(Value):
    """Nova has four words for one state."""

    status: str
    vm_state: str
    power_state: int
    task_state: str | None = None


_SERVER: dict[GuestState, ServerState] = {
    GuestState.RUNNING: ServerState(status="ACTIVE", vm_state="active", power_state=1),
    GuestState.PAUSED: ServerState(status="PAUSED", vm_state="paused", power_state=3),
    GuestState.SHUTOFF: ServerState(status="SHUTOFF", vm_state="stopped", power_state=4),
    GuestState.ABSENT: ServerState(status="SHUTOFF", vm_state="stopped", power_state=4),
    GuestState.UNKNOWN: ServerState(status="UNKNOWN", vm_state="active", power_state=0),
}


_DIAGNOSED: dict[GuestState, str] = {
    GuestState.RUNNING: "running",
    GuestState.PAUSED: "paused",
    GuestState.SHUTOFF: "shutdown",
    GuestState.ABSENT: "shutdown",
    GuestState.UNKNOWN: "pending",
}
"""In the words of Nova's diagnostics."""

STATUSES = frozenset({
    "ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PASSWORD", "PAUSED", "REBOOT", "REBUILD",
    "RESCUE", "RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED",
    "UNKNOWN", "VERIFY_RESIZE",
})  # fmt: skip
"""All that Nova has."""


_ASLEEP = ServerState(status="SUSPENDED", vm_state="suspended", power_state=7)


def server_state(state: GuestState, *, migrating: bool, asleep: bool = False) -> ServerState:
    """Of a VM that was last seen so; `migrating`: a migration holds it. `asleep`: it has suspended itself."""
    found = _ASLEEP if asleep and state is GuestState.PAUSED else _SERVER[state]
    if migrating:
        return found.model_copy(update={"status": "MIGRATING", "task_state": "migrating"})
    return found


def diagnosed(vm: Vm) -> str:
    """A guest's state in the words of Nova's diagnostics."""
    return "suspended" if vm.reason == "pmsuspended" else _DIAGNOSED[vm.state]


MIGRATION: dict[Status, str] = {
    Status.QUEUED: "queued",
    Status.PREPARING: "preparing",
    Status.MIGRATING: "running",
    Status.POST_COPY: "running (post-copy)",
    Status.RECOVERING: "running (post-copy)",
    Status.POST_MIGRATING: "post-migrating",
    Status.COMPLETED: "completed",
    Status.ROLLING_BACK: "running",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.ERROR: "error",
}
"""Nova has no word for a rollback: it is not over yet."""


def statuses_called(word: str) -> tuple[Status, ...]:
    """Those of Sterna that are this word of Nova's; none for a word that is not used here."""
    return tuple(status for status, called in MIGRATION.items() if called == word)


NOT_SHOWN_IN_PROGRESS = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.ERROR})
"""Nova shows a server's migrations only while they are under way."""
