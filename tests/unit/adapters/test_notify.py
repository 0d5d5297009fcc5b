"""Signed webhooks, against a real server: it accepts, refuses, hangs, redirects, answers slowly or too much."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sterna.adapters.hooks import posting
from sterna.adapters.hooks.notify import SignedWebhooks, Target
from sterna.domain.errors import Permanent, Unreachable
from sterna.kit.clock import SystemClock
from sterna.ports.notifications import Notification

KEY = b"0123456789abcdef0123456789abcdef"
OLD = b"fedcba9876543210fedcba9876543210"
EVENT = Notification(
    endpoint="pager",
    subject="migrations/m1",
    id="cccccccc-0000-4000-8000-000000000001",
    type="migration.failed",
    at="2026-01-01T00:00:00+00:00",
    data={"vm": {"name": "wéb1"}},
)


@dataclass
class Receiver:
    """On 127.0.0.1: what it was sent, and how it answers."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trickles: bool = False
    """Its answer's body never ends."""
    hangs: threading.Event | None = None
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    ends: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            if state.hangs is not None:
                state.hangs.wait(10)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)
            while state.trickles and not state.ends.wait(0.01):
                self.wfile.write(b"x")

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # whoever asked has gone
                return

        def log_message(self, *_: object) -> None:
            return

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = serving.server_port
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    state.ends.set()
    if state.hangs is not None:
        state.hangs.set()
    serving.shutdown()
    serving.server_close()


def sender(url: str, *keys: bytes) -> SignedWebhooks:
    return SignedWebhooks({"pager": Target(url, keys or (KEY,))}, SystemClock())


def signature(key: bytes, headers: dict[str, str], body: bytes) -> str:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


async def test_it_is_sent_signed_and_documented(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answer = await sender(f"{receiver.url}/hooks/sterna?x=1", KEY, OLD).send(EVENT)
    assert answer.accepted and answer.status == 204
    ((path, headers, body),) = receiver.asked
    assert path == "/hooks/sterna?x=1" and headers["content-type"] == "application/json"
    assert headers["webhook-id"] == EVENT.id and abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["webhook-signature"].split() == [signature(key, headers, body) for key in (KEY, OLD)]
    assert json.loads(body) == {
        "version": 1,
        "id": EVENT.id,
        "type": "migration.failed",
        "timestamp": EVENT.at,
        "object": "/v1/migrations/m1",
        "data": {"vm": {"name": "wéb1"}},
    }


async def test_a_repeated_try_has_the_same_id_and_body(receiver: Receiver) -> None:
    for _ in range(2):
        await sender(receiver.url).send(EVENT)
    (_, first, body), (_, second, again) = receiver.asked
    assert (first["webhook-id"], body) == (second["webhook-id"], again)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirection_is_an_answer_and_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": f"{receiver.url}/elsewhere"}
    answer = await sender(receiver.url).send(EVENT)
    assert (answer.status, answer.accepted, len(receiver.asked)) == (status, False, 1)


async def test_of_a_test_the_beginning_of_the_answer_is_read(receiver: Receiver) -> None:
    receiver.status, receiver.body = 500, b"no such \x1b[31mteam\n" + b"x" * 100_000
    assert (await sender(receiver.url).send(EVENT)).text == ""
    answer = await sender(receiver.url).send(EVENT, read=True)
    assert answer.text.startswith("no such ") and "\x1b" not in answer.text
    assert len(answer.text) < 2 * posting.MOST_READ


async def test_an_answer_that_never_ends_is_not_waited_for(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "READ_S", 0.1)
    receiver.status, receiver.trickles = 200, True
    began = time.monotonic()
    assert (await sender(receiver.url).send(EVENT)).accepted
    assert (await sender(receiver.url).send(EVENT, read=True)).text.startswith("x")
    assert time.monotonic() - began < 5


async def test_a_server_that_hangs_or_is_away_is_unreachable(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.hangs = threading.Event()
    monkeypatch.setattr(posting, "ANSWER_S", 0.1)
    with pytest.raises(Unreachable, match="cannot be called"):
        await sender(f"{receiver.url}/s3cret").send(EVENT)
    monkeypatch.setattr(posting, "ANSWER_S", 10.0)
    monkeypatch.setattr(posting, "LONGEST_S", 0.1)
    with pytest.raises(Unreachable, match=r"has not answered within 0\.1 s") as raised:
        await sender(f"{receiver.url}/s3cret").send(EVENT)
    assert "s3cret" not in raised.value.message
    monkeypatch.setattr(posting, "LONGEST_S", 30.0)
    with pytest.raises(Unreachable, match="cannot be called"):
        await sender("http://127.0.0.1:9/").send(EVENT)


async def test_what_is_no_http_is_unreachable(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 200, {"Content-Length": "x"}
    with pytest.raises(Unreachable, match="RemoteProtocolError"):
        await sender(receiver.url).send(EVENT, read=True)


async def test_an_endpoint_of_other_settings_is_not_called(receiver: Receiver) -> None:
    with pytest.raises(Permanent, match="no endpoint chat"):
        await sender(receiver.url).send(EVENT.model_copy(update={"endpoint": "chat"}))
    assert not receiver.asked


def test_neither_key_nor_path_is_in_what_is_logged() -> None:
    shown = repr(Target("https://alerts.example/s3cret", (b"s3cret" * 5,)))
    assert shown == "Target('https://alerts.example')"
