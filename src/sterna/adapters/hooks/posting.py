"""One POST to an address of the settings. No redirection is followed, no proxy of the environment is used."""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple

import httpx2

from sterna.domain.errors import Permanent, Unreachable
from sterna.ports.hooks import Right

ANSWER_S = 10.0
"""Of each connection and of each read."""
LONGEST_S = 30.0
"""Of one call, whatever trickles in, its name's resolution included. For who waits for its thread."""
READ_S = 5.0
"""For what is read of an answer's body."""
MOST_READ = 4096
"""Bytes of it."""


class Message(NamedTuple):
    """What is sent, and where to."""

    url: str
    server: str
    """Of the address what errors may show."""
    headers: dict[str, str]
    body: bytes
    """JSON."""
    ca_file: str | None = None
    """Whose certificates the server has; None: the system's authorities."""
    fix: str = ""
    """Where the headers are wrong."""


class Answered(NamedTuple):
    """The answer."""

    status: int
    body: bytes = b""
    """Its beginning, where that was wanted."""


def _always() -> float:
    return LONGEST_S


def post(message: Message, *, right: Right = _always, read: bool = False) -> Answered:
    """In a thread: a resolver has no limit. Nothing is sent once the right to is over, however long resolving and
    connecting have taken. `read`: the beginning of the answer's body, too.

    Raises Permanent where the headers cannot be sent, which does not show them; Unreachable where no answer came.
    """

    def may_be_sent(event: str, _: object) -> None:
        if event.endswith("send_request_headers.started") and right() <= 0:
            raise Unreachable(f"{message.server} was not called: the right to call it was over")

    headers = {"Content-Type": "application/json"} | message.headers
    try:
        trusted = ssl.create_default_context(cafile=message.ca_file)
        with (
            httpx2.Client(verify=trusted, timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", message.url, content=message.body, headers=headers, extensions={"trace": may_be_sent}
            ) as answer,
        ):
            return Answered(answer.status_code, _beginning(answer) if read else b"")
    except (httpx2.LocalProtocolError, UnicodeError) as error:  # its text has the header, so nothing follows it
        raise Permanent(f"{message.server} cannot be called: {type(error).__name__}", fix=message.fix) from None
    except httpx2.RemoteProtocolError as error:  # its text may be what the server has sent
        raise Unreachable(f"{message.server} cannot be called: {type(error).__name__}") from None
    except (httpx2.HTTPError, OSError) as error:
        raise Unreachable(f"{message.server} cannot be called: {error or type(error).__name__}") from error


def _beginning(answer: httpx2.Response) -> bytes:
    """What a server sends too slowly, or breaks off, is left out: it has answered."""
    found, until = b"", time.monotonic() + READ_S
    try:
        for part in answer.iter_raw():
            found += part
            if len(found) >= MOST_READ or time.monotonic() > until:
                break
    except httpx2.HTTPError:
        pass
    return found[:MOST_READ]
