"""The harness finds what it must find."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import cast

import pytest

from sterna.lab.lab import Lab
from tests.fuzz.run import nobody_was_let_in

DOCUMENT = {
    "paths": {
        "/v1/version": {"get": {}},
        "/v1/vms/{vm}": {"get": {"security": [{"token": []}]}},
        "/v1/tokens": {"post": {"security": [{"token": []}]}},
    }
}


class Careless(BaseHTTPRequestHandler):
    """Any token will do."""

    def do_GET(self) -> None:
        self.send_response(200 if "Authorization" in self.headers else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing: it would go to stderr."""


@pytest.fixture
def careless() -> Iterator[Lab]:
    server = HTTPServer(("127.0.0.1", 0), Careless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield cast(Lab, SimpleNamespace(controller_url=url, api_access={"verify": True}))
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_api_that_takes_any_token_is_noticed(careless: Lab) -> None:
    assert nobody_was_let_in(careless, DOCUMENT) == [
        "GET /v1/vms/vm without a valid token: 200",
        "POST /v1/tokens without a valid token: 200",
    ]
