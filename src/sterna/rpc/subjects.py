"""Names on the bus. One host name is one token of a subject, dots and all, so that `*` matches one host.

The sender is named in the subject: nats-server refuses messages in another's name (`domain/trust/bus_rights.py`),
and a received message is compared with it.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from sterna.domain.errors import BadRequest
from sterna.domain.trust import bus_rights

_EVENT = f"{bus_rights.EVENT}."


def token(name: str) -> str:
    """`name` as one token: `dhost.example.org` becomes `dhost%2Eexample%2Eorg`. Raises BadRequest if empty."""
    if not name:
        raise BadRequest("a host has no name")
    return quote(name, safe="@").replace(".", "%2E").replace("~", "%7E")


def name_of(subject_token: str) -> str:
    """The inverse of `token`."""
    return unquote(subject_token)


def call_subject(host: str, sender: str) -> str:
    """Where `sender` calls the agent of `host`."""
    return f"{bus_rights.AGENT}.{token(host)}.call.{token(sender)}"


def cast_subject(host: str, sender: str) -> str:
    """Where `sender` casts to the agent of `host`."""
    return f"{bus_rights.AGENT}.{token(host)}.cast.{token(sender)}"


def calls_to(host: str) -> str:
    """All calls of the agent of `host`."""
    return f"{bus_rights.AGENT}.{token(host)}.call.*"


def casts_to(host: str) -> str:
    """All casts to the agent of `host`."""
    return f"{bus_rights.AGENT}.{token(host)}.cast.*"


def sender_in(subject: str) -> str:
    """Who sent a message to this subject; '' where that names nobody."""
    return name_of(bus_rights.sender_of(subject))


def check_sender(subject: str, claimed: str) -> None:
    """Raises BadRequest where a message and its subject name different senders."""
    sender = sender_in(subject)
    if sender != claimed:
        raise BadRequest(
            f"the message says that it is from {claimed!r}, and its subject says {sender or 'nobody'!r}",
            fix="find out who sends in another's name; or upgrade the older of the two processes",
        )


def event_subject(topic: str) -> str:
    """Where hints about `topic` go: `host.<token>`, `progress.<token>.<id>`. A pattern may have `*` as a token."""
    return _EVENT + topic


def topic_of(subject: str) -> str:
    """The inverse of `event_subject`."""
    return subject.removeprefix(_EVENT)


def host_topic(host: str) -> str:
    """The topic of a host's beacons; those of all hosts: `host.*`."""
    return f"host.{token(host)}"


def vms_topic(host: str) -> str:
    """The topic on which a host tells what has changed of its VMs; all of them: `vms.*`."""
    return f"vms.{token(host)}"
