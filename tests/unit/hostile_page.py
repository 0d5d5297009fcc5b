"""docs/reference/hostile-agent.md: what each message of a host that was taken over leads to.

`tests/contract/test_hostile_agent.py` and `test_hostile_source.py` send all of them, and compare what happens with
these rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain.journal import Kind
from sterna.domain.trust.bus_rights import EVENT, rights_of_token
from sterna.domain.trust.callers import CALLERS, Caller
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from tests.unit.markdown import MADE

ANSWERED = "answered; nothing changes"
NOT_DELIVERED = "not delivered: the bus refuses it"
HINT_OUTCOMES = {
    "host": "read as its own heartbeat; one that describes another host is refused",
    "journal": "its own journal is read",
    "progress": "ignored: it is not this migration's source",
    "leaving": "ignored: it is not this migration's source",
    "external": NOT_DELIVERED,
}
ITS_OWN = "applied to its own host only"
"""Of a topic that is not listed above."""
NOT_STORED = "not stored"


def outcome(method: str) -> str:
    """Of a call or cast about a migration of other hosts, from an enrolled host."""
    caller = CALLERS[method]
    return ANSWERED if caller is Caller.ENROLLED else f"refused: only {caller.value} may"


def methods() -> list[tuple[str, str, str]]:
    """Each method: as itself, and in the name of a controller or of another host."""
    return [(method, outcome(method), NOT_DELIVERED) for method in sorted(CALLERS)]


def topics() -> dict[str, int]:
    """Of all hints that an agent or a controller may send, by the rules of the bus, and how many words each has."""
    patterns = [p for token in ("host1", CONTROLLER_TOKEN) for p in rights_of_token(token).publish]
    words = sorted(pattern.split(".")[2:] for pattern in patterns if pattern.startswith(f"{EVENT}."))
    return {topic[0]: len(topic) for topic in words}


def hints() -> list[tuple[str, str, str]]:
    """Each kind of hint: in its own name, and in another host's."""
    return [(topic, HINT_OUTCOMES.get(topic, ITS_OWN), NOT_DELIVERED) for topic in topics()]


def entries() -> list[tuple[str, str]]:
    """Each kind of journal entry about a migration of other hosts, as that of its source or its destination."""
    return [(kind.value, NOT_STORED) for kind in Kind]


def page() -> str:
    """The page."""
    parts = [
        "# A hostile agent",
        MADE,
        INTRODUCTION,
        "## Calls and casts",
        _table(("Method", "As itself", "In the name of a controller or another host"), methods()),
        "## Hints",
        _table(("Topic", "In its own name", "In another host's name"), hints()),
        "## Entries of its journal",
        _table(("Kind of entry, about a migration of other hosts", "Outcome"), entries()),
        "## Everything else",
        _rest(),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [f"| `{row[0]}` | " + " | ".join(row[1:]) + " |" for row in rows]
    return "\n".join(lines)


INTRODUCTION = """\
This page lists what a compromised, enrolled host can do to others. A test sends all of these messages with that
host's real certificate, to a real nats-server with the configuration of `sterna bus config`. Two other agents,
the controller and its records are real, and a VM is being migrated between the two agents. Only libvirt, storage
and network are simulated.

After each part, nothing has changed on the other hosts, in their journals and in the records. All other calls are
answered, and the running migration ends normally. [Trust](../explanation/trust.md) explains the consequences."""

_REST = [
    (
        "10,000 malformed messages: wrong types, huge numbers, deep nesting, broken UTF-8, cut off",
        "refused; the last of them are listed by `sterna audit`",
    ),
    ("messages about no migration, or an unknown one", "nothing changes"),
    (
        "journal entries of made-up migrations of other hosts' VMs",
        "kept as its own; the VMs stay where they are, and free",
    ),
    (
        "the same, while it says that it runs the VM",
        "the VM may be shown at it, and stays free; its own host has it again when that is over",
    ),
    (
        "ports, volumes and names of others, in a migration of its own that a controller has asked for",
        "refused: the destination asks the cloud's services; they stay as they are",
    ),
    ("subscriptions to other hosts' calls, answers, journals or progress", "refused by the bus"),
    ("a stranger: without TLS, without a certificate, with one of another CA", "nothing is delivered"),
]


def _rest() -> str:
    lines = ["| What | Outcome |", "|---|---|", *(f"| {what} | {outcome} |" for what, outcome in _REST)]
    return "\n".join(lines)
