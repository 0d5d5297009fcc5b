"""The CLI against an API that is late, away, interrupted, or not Sterna's."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import httpx2
import pytest
from typer.testing import CliRunner

from sterna.cli.client import ApiError, Client
from sterna.cli.main import app
from tests.unit.cli.reading import ID


def test_outages_far_apart_are_not_one_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, left = [0.0], [3]

    def nothing_happens() -> Iterator[bytes]:
        yield b": hello\n\n"
        clock[0] += 600
        left[0] -= 1
        if left[0] >= 0:
            raise httpx2.ReadError("connection reset")
        yield b"event: end\ndata: {}\n\n"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=nothing_happens())

    monkeypatch.setattr("sterna.cli.client.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: None))
    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(answer))
    assert [event for event, _ in Client("http://sterna", http).events(ID)] == ["end"]


def test_an_answer_that_takes_too_long_is_not_called_an_absent_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("timed out", request=request)

    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(answer))
    monkeypatch.setattr("sterna.cli.main.client_of", lambda api: Client("http://sterna", http))
    result = CliRunner().invoke(app, ["audit"])
    assert result.exit_code == 6
    assert "within 120 s" in result.stderr and "fix:" in result.stderr
    assert "sterna lab up" not in result.stderr


def client_with(*answers: httpx2.Response) -> Client:
    """A client of an API that gives these answers, the last one for good."""
    left = list(answers)
    transport = httpx2.MockTransport(lambda _: left.pop(0) if len(left) > 1 else left[0])
    return Client("http://sterna", httpx2.Client(base_url="http://sterna", transport=transport))


AWAY = {
    "type": "urn:sterna:problem:unreachable",
    "status": 503,
    "detail": "the controller's database does not answer",
}


def away() -> httpx2.Response:
    return httpx2.Response(503, headers={"content-type": "application/problem+json"}, json=AWAY)


def test_who_watches_outlives_a_database_that_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.cli.client.RESUME_S", 0)
    end = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"event: end\ndata: {}\n\n")
    assert [event for event, _ in client_with(away(), away(), end).events(ID)] == ["end"]


def test_who_watches_is_told_in_the_end_what_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 20))
    told = SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda s: None)
    monkeypatch.setattr("sterna.cli.client.time", told)
    with pytest.raises(ApiError, match="database"):
        list(client_with(away()).events(ID))


@pytest.mark.parametrize("other", [b"[1, 2]", b"7", b"null", b'"hello"'])
def test_json_that_is_not_sternas_is_not_called_a_bug(other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx2.Response(200, headers={"content-type": "application/json"}, content=other)
    monkeypatch.setattr("sterna.cli.lists.client_of", lambda api: client_with(answer))
    result = CliRunner().invoke(app, ["hosts"])
    assert result.exit_code == 6 and "is not from Sterna" in result.stderr


def test_who_is_interrupted_while_it_is_asked_for_is_told_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(interrupted))
    monkeypatch.setattr("sterna.cli.main.client_of", lambda api: Client("http://sterna", http))
    result = CliRunner().invoke(app, ["migrate", "web1", "--id", ID])
    assert result.exit_code == 130 and f"sterna show {ID}" in result.stderr
