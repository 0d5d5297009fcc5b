"""An API that takes connections and then says nothing, or next to nothing: nobody waits for it without an end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import httpx2
import pytest
from typer.testing import CliRunner

from sterna.cli.client import ApiAway, ApiSlow, Client
from sterna.cli.exits import Exit
from sterna.cli.main import app
from sterna.cli.waiting import within
from tests.unit.cli.reading import ID

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b"event: end\ndata: {}\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: "
ANSWER = HEAD + b"2\r\n\r\n{}"


class SilentApi:
    """Answers each connection with what `script` has for it (bytes to send, seconds to wait), then keeps it open
    without a word."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.script: Callable[[int], Iterable[bytes | float]] = lambda number: ()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def asked(self) -> int:
        """How often."""
        return len(self._open)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection, self.asked), daemon=True).start()

    def _answer(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            connection.recv(65536)
            for one in self.script(number):
                connection.sendall(one) if isinstance(one, bytes) else time.sleep(one)

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


def drops(text: bytes) -> Iterator[bytes | float]:
    for byte in text:
        yield bytes((byte,))
        yield 0.02


def test_a_stream_that_falls_silent_is_opened_again(silent: SilentApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.SILENCE_S", 0.2)
    monkeypatch.setattr("sterna.cli.client.RESUME_S", 0)
    silent.script = lambda number: (STREAM, END if number == 3 else b"")
    assert [event for event, _ in Client(silent.url).events(ID)] == ["end"]


ASK: dict[str, Callable[[Client], object]] = {
    "get": lambda client: client.get("/v1/hosts"),
    "text": lambda client: client.text("/v1/migrations/1/diagram"),
    "post": lambda client: client.post("/v1/migrations", {}),
    "patch": lambda client: client.patch("/v1/hosts/a", {}),
}
SCRIPTS: dict[str, Callable[[], Iterable[bytes | float]]] = {
    "nothing": lambda: (),
    "half of it": lambda: (HEAD + b"10\r\n\r\n{",),
    "headers, drop by drop": lambda: (*drops(HEAD + b"2\r\nX-Much: " + b"x" * 100), b"\r\n\r\n{}"),
    "a body, drop by drop": lambda: (HEAD + b"102\r\n\r\n", *drops(b"{" + b" " * 100 + b"}")),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_an_answer_that_never_comes_is_said_to(
    silent: SilentApi,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Client], object],
    script: Callable[[], Iterable[bytes | float]],
) -> None:
    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 0.2)
    silent.script = lambda number: script()
    with pytest.raises(ApiSlow, match="no response from the controller"):
        ask(Client(silent.url))


def test_a_name_that_is_never_resolved_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def hangs(*_: object, **__: object) -> None:
        end.wait(20)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    with pytest.raises(ApiSlow):
        Client("http://sterna.example").get("/v1/hosts")
    end.set()


@pytest.mark.parametrize("how", ["name", "headers", "refusal"])
def test_a_stream_that_is_never_opened_is_given_up(
    silent: SilentApi, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def hangs(*_: object, **__: object) -> None:
        end.wait(20)
        raise RuntimeError("it was waited for")

    end, api = threading.Event(), silent.url
    monkeypatch.setattr("sterna.cli.client.SILENCE_S", 0.2)
    monkeypatch.setattr("sterna.cli.client.GIVE_UP_S", 0.5)
    monkeypatch.setattr("sterna.cli.client.RESUME_S", 0.01)
    if how == "name":
        monkeypatch.setattr(socket, "getaddrinfo", hangs)
        api = "http://sterna.example"
    elif how == "refusal":
        silent.script = lambda number: (REFUSAL + b"1000\r\n\r\n", *drops(b"x" * 1000))
    else:
        silent.script = lambda number: (*drops(STREAM[:-2] + b"X-Much: " + b"x" * 100), b"\r\n\r\n", END)
    with pytest.raises(ApiAway):
        within(10, lambda: list(Client(api).events(ID)))
    end.set()


def test_all_answers_of_one_command_share_one_limit(silent: SilentApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 1.0)
    silent.script = lambda number: (0.4, ANSWER)
    client = Client(silent.url)
    with pytest.raises(ApiSlow):
        for _ in range(10):
            client.get("/v1/hosts")


def test_what_is_asked_for_after_a_stream_has_a_limit_of_its_own(
    silent: SilentApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 1.0)
    silent.script = lambda number: (STREAM, 1.5, END) if number == 2 else (0.4, ANSWER)
    client = Client(silent.url)
    assert client.get(f"/v1/migrations/{ID}") == {}
    assert [event for event, _ in client.events(ID)] == ["end"]  # longer than any answer may take
    assert client.get(f"/v1/migrations/{ID}") == {}


def test_a_request_to_migrate_is_not_sent_again_where_time_is_up(
    silent: SilentApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.cli.client.ANSWER_S", 0.2)
    result = CliRunner().invoke(app, ["migrate", "web1", "--id", ID, "--api", silent.url])
    assert (result.exit_code, silent.asked) == (Exit.UNREACHABLE, 1)
    assert "within 0.2 s" in result.stderr and f"sterna show {ID}" in result.stderr


def test_whoever_interrupts_the_second_try_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def lost(request: httpx2.Request) -> httpx2.Response:
        tries.append(request)
        if len(tries) == 1:
            raise httpx2.ReadError("the connection was reset")
        raise KeyboardInterrupt

    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(lost))
    monkeypatch.setattr("sterna.cli.main.client_of", lambda api: Client("http://sterna", http))
    result = CliRunner().invoke(app, ["migrate", "web1", "--id", ID])
    assert (result.exit_code, len(tries)) == (130, 2)
    assert f"sterna show {ID}" in result.stderr


@pytest.mark.parametrize(
    "api", ["http://me:pa@ss/word@127.0.0.1:1", "http://me:s3cret@127.0.0.1:1/x", "http://s3cret@127.0.0.1:port"]
)
def test_an_error_shows_no_password(api: str) -> None:
    """It ends up in logs and bug reports."""
    done = CliRunner().invoke(app, ["hosts", "--api", api])
    assert done.exit_code
    assert "s3cret" not in done.output and "pa@ss" not in done.output
    assert "127.0.0.1" in done.output
