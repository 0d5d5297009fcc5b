"""Rights on the bus: the subjects that each client may publish to and subscribe to. Pure.

The last token of the subject of a call, a cast or an answer is who sends it, so that nats-server proves who sends.
`bus_config.py` writes these rules for nats-server.

A request names the subject of its answers: `_INBOX.ASKER.PROCESS.REQUEST.ANSWERER`. Only its asker may subscribe to
it, and only the agent that was asked may publish to it. A reply subject gives no right (nats-server's
`allow_responses` would): whoever sends a message chooses its reply subject, also in a message to itself.
"""

from __future__ import annotations

from sterna.domain.model import Value
from sterna.domain.trust.identities import CONTROLLER_TOKEN, Identity

EVENT, AGENT, INBOX = "sterna.event", "sterna.agent", "_INBOX"
NOBODY = "-"
"""A token that no client has: of an asker without a name, and of whoever is asked where no agent is named."""


class Rights(Value):
    """Patterns of subjects: `*` is one token, `>` the rest. Nothing else is allowed."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def rights_of(who: Identity) -> Rights:
    """The rights of an agent or a controller. Raises BadRequest for an identity without any."""
    return rights_of_token(who.bus_token)


def rights_of_token(token: str) -> Rights:
    """The rights of the client with this name in subjects."""
    return _of_controller(token) if token == CONTROLLER_TOKEN else _of_agent(token)


def _of_agent(token: str) -> Rights:
    return Rights(
        publish=(
            f"{AGENT}.*.call.{token}",
            f"{AGENT}.*.cast.{token}",
            f"{EVENT}.host.{token}",
            f"{EVENT}.journal.{token}",
            f"{EVENT}.progress.{token}.*",
            f"{EVENT}.leaving.{token}.*",
            f"{EVENT}.vms.{token}",
            f"{INBOX}.*.*.*.{token}",
        ),
        subscribe=(
            f"{AGENT}.{token}.call.*",
            f"{AGENT}.{token}.cast.*",
            f"{EVENT}.host.*",
            f"{EVENT}.external.*",
            f"{EVENT}.leaving.*.*",
            f"{INBOX}.{token}.>",
        ),
    )


def _of_controller(token: str) -> Rights:
    return Rights(
        publish=(f"{AGENT}.*.call.{token}", f"{EVENT}.external.*"),
        subscribe=(
            f"{EVENT}.host.*",
            f"{EVENT}.journal.*",
            f"{EVENT}.progress.*.*",
            f"{EVENT}.vms.*",
            f"{INBOX}.{token}.>",
        ),
    )


def may_publish(rights: Rights, subject: str) -> bool:
    """May a message be sent to this subject, an answer too?"""
    return any(covers(pattern, subject) for pattern in rights.publish)


def may_subscribe(rights: Rights, pattern: str) -> bool:
    """May this pattern be subscribed to? All of it must be allowed, as nats-server sees it."""
    return any(covers(allowed, pattern) for allowed in rights.subscribe)


def covers(allowed: str, pattern: str) -> bool:
    """Is every subject that matches `pattern` matched by `allowed`? A plain subject is a pattern too."""
    wide, narrow = allowed.split("."), pattern.split(".")
    if wide[-1] == ">":
        head = wide[:-1]
        return len(narrow) > len(head) and all(map(_token_covers, head, narrow))
    return len(wide) == len(narrow) and all(map(_token_covers, wide, narrow))


def _token_covers(wide: str, narrow: str) -> bool:
    return narrow != ">" and wide in ("*", narrow)


def inbox_of(asker: str, process: str) -> str:
    """Where the answers to one process of this client go. `process` tells it from others of the same name."""
    return f"{INBOX}.{asker or NOBODY}.{process}"


def answer_subject(inbox: str, request: str, subject: str) -> str:
    """Where the answers to a request go that is sent to `subject`. `request` must not be guessable."""
    return f"{inbox}.{request}.{_asked_on(subject)}"


def _asked_on(subject: str) -> str:
    parts = subject.split(".")
    return parts[2] if subject.startswith(f"{AGENT}.") and len(parts) == 5 else NOBODY


def is_inbox_of(subject: str, sender: str) -> bool:
    """May answers to this sender go there? `sender`: '' where the subject of a message has no sender."""
    return subject.startswith(f"{INBOX}.{sender}." if sender else f"{INBOX}.")


def sender_of(subject: str) -> str:
    """Who sent a call, a cast or a hint to this subject, by the subject alone; '' for one without a sender."""
    parts = subject.split(".")
    if subject.startswith(f"{AGENT}.") and len(parts) == 5:
        return parts[4]
    if subject.startswith(f"{EVENT}.") and len(parts) >= 4:
        return CONTROLLER_TOKEN if parts[2] == "external" else parts[3]
    return ""
