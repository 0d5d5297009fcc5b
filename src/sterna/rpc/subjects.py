"""Names on the bus. One host name is one token of a subject, dots and all, so that `*` matches one host."""

from __future__ import annotations

from urllib.parse import quote, unquote

from sterna.domain.errors import BadRequest

_EVENT = "sterna.event."


def token(name: str) -> str:
    """`name` as one token: `dhost.example.org` becomes `dhost%2Eexample%2Eorg`. Raises BadRequest if empty."""
    if not name:
        raise BadRequest("a host has no name")
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def name_of(subject_token: str) -> str:
    """The inverse of `token`."""
    return unquote(subject_token)


def call_subject(host: str) -> str:
    """Where the agent of `host` takes calls."""
    return f"sterna.agent.{token(host)}.call"


def cast_subject(host: str) -> str:
    """Where the agent of `host` takes casts."""
    return f"sterna.agent.{token(host)}.cast"


def event_subject(topic: str) -> str:
    """Where hints about `topic` go: `host.<token>`, `migration.<id>`. A pattern may have `*` as a token."""
    return _EVENT + topic


def topic_of(subject: str) -> str:
    """The inverse of `event_subject`."""
    return subject.removeprefix(_EVENT)


def host_topic(host: str) -> str:
    """The topic on which a host says it is there; all of them: `host.*`."""
    return f"host.{token(host)}"
