"""Several addresses: the next controller is asked where one cannot be reached. Nothing is asked for twice that may
have been accepted, unless it may be done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from sterna.cli.api_address import ApiAddress, find_apis
from sterna.cli.client import ApiAway, ApiSlow, Client
from sterna.cli.exits import Exit
from sterna.cli.main import app
from tests.unit.cli.reading import ID, document

from .served import Served

Answer = Callable[[httpx2.Request], httpx2.Response]


class Controllers:
    """Two, each with what it does with a request."""

    def __init__(self, first: Answer, second: Answer) -> None:
        self.asked: list[tuple[str, str]] = []
        self._answers = {"one": first, "two": second}

    def client(self, monkeypatch: pytest.MonkeyPatch) -> Client:
        def http(address: ApiAddress, connect_s: float = 0) -> httpx2.Client:
            return httpx2.Client(base_url=address.api, transport=httpx2.MockTransport(self._answer))

        monkeypatch.setattr("sterna.cli.client._http_of", http)
        return Client.of(ApiAddress("http://one"), ApiAddress("http://two"))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append((request.url.host, request.method))
        return self._answers[request.url.host](request)


def absent(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def cut(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadError("the connection was reset", request=request)


def late(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("timed out", request=request)


def proxy(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(502, text="Bad Gateway")


def well(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json={"well": True})


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_where_nothing_listens_the_next_one_is_asked(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Controllers(absent, well)
    client = both.client(monkeypatch)
    body: list[dict[str, str]] = [] if method in ("get", "delete") else [{}]
    assert getattr(client, method)("/v1/x", *body) == {"well": True}
    assert [host for host, _ in both.asked] == ["one", "two"]
    client.get("/v1/y")
    assert both.asked[2:] == [("two", "GET")]  # the one that has answered is asked first from now on


@pytest.mark.parametrize("lost", [cut, proxy])
def test_what_may_have_been_accepted_is_not_repeated(lost: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, path, body in (
        ("post", "/v1/migrations/1/abort", None),
        ("post", "/v1/operations", {"hosts": ["a"]}),  # without an id
        ("post", "/v1/tokens", {"id": "1"}),
        ("patch", "/v1/hosts/a", {}),
    ):
        both = Controllers(lost, well)
        with pytest.raises(ApiAway):
            getattr(both.client(monkeypatch), method)(path, body)
        assert [host for host, _ in both.asked] == ["one"]
    both = Controllers(lost, well)
    with pytest.raises(ApiAway):
        both.client(monkeypatch).delete("/v1/rules/x")
    assert [host for host, _ in both.asked] == ["one"]


@pytest.mark.parametrize("lost", [cut, proxy])
def test_what_may_be_done_twice_is_repeated(lost: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    asks: list[Callable[[Client], object]] = [
        lambda client: client.get("/v1/hosts"),
        lambda client: client.text("/v1/migrations/1/diagram"),
        lambda client: client.put("/v1/rules/x", {}),
        lambda client: client.post("/v1/migrations", {"id": ID}),
        lambda client: client.post("/v1/operations", {"id": ID}),
    ]
    for ask in asks:
        both = Controllers(lost, well)
        ask(both.client(monkeypatch))
        assert [host for host, _ in both.asked] == ["one", "two"]


def test_one_that_is_late_has_used_up_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Controllers(late, well)
    with pytest.raises(ApiSlow):
        both.client(monkeypatch).get("/v1/hosts")
    assert [host for host, _ in both.asked] == ["one"]


def test_where_none_answers_each_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Controllers(absent, proxy)
    client = both.client(monkeypatch)
    monkeypatch.setattr("sterna.cli.lists.client_of", lambda api: client)
    said = CliRunner().invoke(app, ["hosts"])
    assert said.exit_code == Exit.UNREACHABLE
    assert "http://one" in said.stderr and "http://two" in said.stderr and "HTTP 502" in said.stderr


def test_a_stream_goes_on_with_the_next_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.RESUME_S", 0)
    head = {"content-type": "text/event-stream"}
    seen: list[str | None] = []

    def breaks(request: httpx2.Request) -> httpx2.Response:
        def pieces() -> Iterator[bytes]:
            yield b"event: step\nid: 7\ndata: {}\n\n"
            raise httpx2.ReadError("gone")

        return httpx2.Response(200, headers=head, content=pieces())

    def goes_on(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("last-event-id"))
        return httpx2.Response(200, headers=head, content=b"event: end\nid: 8\ndata: {}\n\n")

    client = Controllers(breaks, goes_on).client(monkeypatch)
    assert [event for event, _ in client.events(ID)] == ["step", "end"]
    assert seen == ["7"]


def test_addresses_with_commas_or_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STERNA_API", raising=False)
    monkeypatch.setenv("STERNA_TOKEN", "mine")

    def apis(given: list[str] | None = None) -> list[str]:
        return [one.api for one in find_apis(given)]

    both = ["https://a:1", "unix:/run/b,c"]
    assert apis(["https://a:1/, unix:/run/b,c"]) == apis(both) == apis([*both, "https://a:1"]) == both
    assert apis(["https://u:a,b@x:1,https://y"]) == ["https://u:a,b@x:1", "https://y"]
    monkeypatch.setenv("STERNA_API", "http://1,http://2")
    assert apis() == ["http://1", "http://2"]
    monkeypatch.delenv("STERNA_API")
    folder = tmp_path / "sterna"
    folder.mkdir()
    (folder / "cli.toml").write_text('api = ["https://c1:8774", "https://c2:8774"]')
    assert apis() == ["https://c1:8774", "https://c2:8774"]
    (folder / "cli.toml").write_text('api = "https://c1:8774,https://c2:8774"')
    assert apis() == ["https://c1:8774", "https://c2:8774"]


def test_a_command_finds_the_controller_that_is_there(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    nobody = "http://127.0.0.1:9"
    assert len(document(sterna("hosts", "--json", "--api", f"{nobody},{fleet.api}"))["hosts"]) == 3
    assert len(document(sterna("hosts", "--json", "--api", nobody, "--api", fleet.api))["hosts"]) == 3
    sterna("host", "maintenance", "b", "--on", "--api", f"{nobody},{fleet.api}")
