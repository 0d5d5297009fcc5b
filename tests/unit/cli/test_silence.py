"""An API that takes connections and then says nothing: nobody waits for it without an end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from sterna.cli.client import ApiSlow, Client

ID = "33333333-3333-4333-8333-333333333333"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b"event: end\ndata: {}\n\n"


class SilentApi:
    """Answers each connection with what `script` has for it, then keeps it open without a word."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.script: Callable[[int], bytes] = lambda number: b""
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.recv(65536)
            connection.sendall(self.script(len(self._open)))

    def close(self) -> None:
        """It ends, with its connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        for one in (self._listening, *self._open):
            one.close()


@pytest.fixture
def silent() -> Iterator[SilentApi]:
    api = SilentApi()
    yield api
    api.close()


def test_a_stream_that_falls_silent_is_opened_again(silent: SilentApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.SILENCE_S", 0.2)
    monkeypatch.setattr("sterna.cli.client.RESUME_S", 0)
    silent.script = lambda number: HEAD + (END if number == 3 else b"")
    assert [event for event, _ in Client(silent.url).events(ID)] == ["end"]


def test_an_answer_that_never_comes_is_said_to(silent: SilentApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 0.2)
    with pytest.raises(ApiSlow, match="gave no answer"):
        Client(silent.url).get("/v1/hosts")
