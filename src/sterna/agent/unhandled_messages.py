"""Messages that this agent cannot handle, as leftovers: casts in the inbox, and messages that it did not accept.

Called through `leftovers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sterna.agent.audit_context import Act, AuditContext, Found
from sterna.domain.audit import Safety, bad_message
from sterna.rpc.server import key_of

MOST = 50
"""Listed at once: the answer has an end, and whoever sends them must not hide what else is found."""
LONGEST = 500
"""Of a reason."""
T = TypeVar("T")


async def set_aside(audit: AuditContext) -> list[Found]:
    """Casts in the inbox that nobody can handle. What an open migration may still need is kept."""
    open_here = {m.id for m, _ in audit.journal.open()}
    aside = audit.messages.aside
    kept = [envelope for envelope in audit.journal.inbox() if key_of(envelope) in aside]
    found = []
    for envelope in kept[:MOST]:
        reason = aside[key_of(envelope)][:LONGEST]
        sent = f"{envelope.method} of migration {envelope.migration_id}, sent by {envelope.sender}"
        why = f"{sent}, is set aside: {reason}"
        if envelope.migration_id in open_here:
            repair = "see the agent's log; it is tried once more when the agent is restarted"
            found.append(Found(audit.leftover("cast", envelope.id, why, Safety.WAITING, repair=repair)))
        else:
            why = f"{why}; no open migration here needs it"
            forgotten = audit.leftover("cast", envelope.id, why, Safety.SAFE, repair="forget it")
            found.append(Found(forgotten, _now(audit.messages.forget, envelope)))
    if more := len(kept) - len(found):
        why = f"{more} more messages are set aside; they are listed when these are gone"
        found.append(Found(audit.leftover("cast", f"{more} more", why, Safety.WAITING)))
    return found


async def bad_messages(audit: AuditContext) -> list[Found]:
    """Messages that this agent could not handle, and did not take."""
    host, messages = audit.host.name, audit.messages
    return [Found(bad_message(host, one), _now(messages.bury, (one.number,))) for one in messages.dead()]


def _now(do: Callable[[T], None], thing: T) -> Act:
    async def act() -> None:
        do(thing)

    return act
