"""OTLP/HTTP with JSON: implements ports.traces.TraceReceiver."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice

import httpx2

from sterna.domain.errors import Permanent, Undelivered, Unreachable
from sterna.domain.plain_text import printable
from sterna.domain.webhooks import Address
from sterna.kit.threads import in_thread

ANSWER_S = 10.0
"""Of each connection, each write and each read."""
LONGEST_S = 30.0
"""Of one request, whatever trickles in, the resolution of the receiver's name included."""
LARGEST_ANSWER = 64 << 10
_LONGEST_WORDS = 200
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""The receiver has not taken it, and may later."""
_FIX = "see [traces] in the settings, and the receiver's log"


class OtlpReceiver:
    """At one address."""

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, ca_file: str | None = None
    ) -> None:
        """`headers`: sent with each request. `ca_file`: whose certificates the receiver has; None: the system's
        authorities."""
        self._address, self._headers, self._ca_file = address, dict(headers or {}), ca_file

    async def send(self, body: bytes) -> None:
        """In a thread: a resolver has no limit. Redirections are not followed."""
        server = self._address.server
        try:
            status, said = await in_thread(lambda: self._post(body), name="traces", of=server, limit_s=LONGEST_S)
        except TimeoutError as error:
            raise Unreachable(f"{server} has not answered within {LONGEST_S:g} s", fix=_FIX) from error
        if status in _LATER:
            raise Undelivered(f"{server} takes no traces now: it answers with status {status}", fix=_FIX)
        if not 200 <= status < 300:
            raise Permanent(f"{server} answers with status {status}", fix=_FIX)
        if rejected := _rejected(said):
            raise Permanent(f"{server} has rejected spans: {rejected}", fix=_FIX)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        server = self._address.server
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            trusted = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise Undelivered(f"ca_file {self._ca_file} cannot be used: {error}", fix=_FIX) from error
        try:
            with (
                httpx2.Client(verify=trusted, timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client,
                client.stream("POST", self._address.url, content=body, headers=headers) as answer,
            ):
                parts = islice(answer.iter_bytes(LARGEST_ANSWER), 1)
                return answer.status_code, b"".join(parts)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Undelivered(f"{server} cannot be reached: {error or type(error).__name__}", fix=_FIX) from error
        except (httpx2.ProtocolError, UnicodeError) as error:  # its text may have a header, or what the server sent
            raise Unreachable(f"{server} cannot be called: {type(error).__name__}", fix=_FIX) from None
        except (httpx2.HTTPError, OSError) as error:
            why = f"{server} has not answered: {error or type(error).__name__}"
            raise Unreachable(why, fix=_FIX) from error


def _rejected(said: bytes) -> str:
    """How many spans, and why; '' where all were taken, or the answer does not mention it."""
    try:
        partial = json.loads(said)["partialSuccess"]
        number = int(partial.get("rejectedSpans", 0))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    why = printable(str(partial.get("errorMessage", ""))[:_LONGEST_WORDS])
    return f"{number}: {why}" if number > 0 else ""
