"""Which sender may call which method of an agent. The bus proves who sends; this decides whether it may. Pure.

Calls for a migration come from its source to its destination, or the reverse. Requests come from controllers. Calls
that change nothing are open to all who are enrolled.
"""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.trust.identities import CONTROLLER_TOKEN


class Caller(StrEnum):
    """Who may send it."""

    CONTROLLER = "a controller"
    SOURCE = "the migration's source"
    DESTINATION = "the migration's destination"
    INVOLVED = "a half of the migration, or a controller"
    ENROLLED = "any enrolled process"


CALLERS: dict[str, Caller] = {
    "ping": Caller.ENROLLED,
    "describe_host": Caller.ENROLLED,
    "check_destination": Caller.ENROLLED,
    "secrets_wanted": Caller.ENROLLED,
    "sees_token": Caller.ENROLLED,
    "sees_file": Caller.ENROLLED,
    "digest": Caller.ENROLLED,
    "expect_stream": Caller.ENROLLED,
    "observe_guest": Caller.ENROLLED,
    "list_vms": Caller.CONTROLLER,
    "show_vm": Caller.CONTROLLER,
    "journal_since": Caller.CONTROLLER,
    "measure_load": Caller.CONTROLLER,
    "check_migration": Caller.CONTROLLER,
    "start_migration": Caller.CONTROLLER,
    "decline_migration": Caller.CONTROLLER,
    "abort_migration": Caller.CONTROLLER,
    "tune_migration": Caller.CONTROLLER,
    "switch_to_postcopy": Caller.CONTROLLER,
    "pause_guest": Caller.CONTROLLER,
    "audit": Caller.CONTROLLER,
    "examine": Caller.CONTROLLER,
    "take_revoked": Caller.CONTROLLER,
    "fencing_plan": Caller.CONTROLLER,
    "declare_dead": Caller.CONTROLLER,
    "declare_alive": Caller.CONTROLLER,
    "refuse_migration": Caller.CONTROLLER,
    "migration_ending": Caller.INVOLVED,
    "migration_fate": Caller.INVOLVED,
    "pre_live_migration": Caller.SOURCE,
    "wait_vif_plugged": Caller.SOURCE,
    "make_way": Caller.SOURCE,
    "take_medium": Caller.SOURCE,
    "rehearse": Caller.SOURCE,
    "open_recovery": Caller.SOURCE,
    "listen_again": Caller.SOURCE,
    "end_lost": Caller.SOURCE,
    "end_incoming": Caller.SOURCE,
    "remove_volume_connection": Caller.SOURCE,
    "rollback_live_migration_at_destination": Caller.SOURCE,
    "post_live_migration_at_destination": Caller.SOURCE,
    "destination_report": Caller.DESTINATION,
    "message_refused": Caller.INVOLVED,
}
"""Every call and cast that an agent takes. One that is not here is refused."""


_OF_A_MIGRATION = (Caller.SOURCE, Caller.DESTINATION, Caller.INVOLVED)


def needs_halves(method: str) -> bool:
    """Does it depend on the migration who may ask for it?"""
    return CALLERS.get(method) in _OF_A_MIGRATION


def not_theirs(method: str, sender: str, halves: tuple[str, str] | None) -> str:
    """Why this sender may not ask for it; '' where it may. `halves`: source and destination of the migration that
    the message is about; None where this host knows none, and the message tells of none.

    For an unknown migration there is nothing to protect: its handler answers that there is none.
    """
    caller = CALLERS.get(method)
    if caller is None:
        return "nobody may"
    allowed = {
        Caller.ENROLLED: True,
        Caller.CONTROLLER: sender == CONTROLLER_TOKEN,
        Caller.SOURCE: halves is None or sender == halves[0],
        Caller.DESTINATION: halves is None or sender == halves[1],
        Caller.INVOLVED: halves is None or sender in (*halves, CONTROLLER_TOKEN),
    }
    return "" if allowed[caller] else f"only {caller.value} may"
