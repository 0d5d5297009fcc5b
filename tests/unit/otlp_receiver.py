"""A real HTTP server that receives traces as a collector of OpenTelemetry does: it parses each, strictly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sterna.domain.webhooks import Address
from tests.unit.otlp_schema import Request


@dataclass
class Receiver:
    """On 127.0.0.1: what it was sent, and what it answers."""

    status: int = 200
    answer: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    hangs: threading.Event | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> Address:
        return Address("http", "127.0.0.1", self.port, "/v1/traces")


@contextmanager
def receiving() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append((self.path, dict(self.headers)))
            state.requests.append(Request.model_validate_json(body))
            if state.hangs is not None:
                state.hangs.wait(10)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(state.answer)))
            self.end_headers()
            self.wfile.write(state.answer)

        def log_message(self, *_: object) -> None:
            return

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = serving.server_port
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    if state.hangs is not None:
        state.hangs.set()
    serving.shutdown()
    serving.server_close()
