"""How many event streams one user has, and until when it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from sterna.api import streams
from sterna.domain.access import UserRole

from ..cli.served import Served, served
from .clients import bearing


@pytest.fixture
def fleet() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def http(fleet: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fleet.api, timeout=30, trust_env=False, headers=bearing()) as http:
        yield http


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def status(http: httpx2.Client, role: UserRole) -> int:
    with http.stream("GET", "/v1/events", headers=bearing(role)) as stream:
        return stream.status_code


def test_one_user_has_so_many_streams_and_no_more(http: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 2)
    with http.stream("GET", "/v1/events") as first, http.stream("GET", "/v1/events") as second:
        both = [stream.iter_lines() for stream in (first, second)]  # one that is dropped ends its stream
        assert [next(lines) for lines in both] == [": hello"] * 2
        refused = http.get("/v1/events")
        assert refused.status_code == 503
        assert "token:admin already has 2 event streams open" in refused.json()["detail"]
        assert refused.json()["reasons"][0]["fix"]
        assert status(http, UserRole.VIEWER) == 200, "another user's are not counted"
    eventually(lambda: status(http, UserRole.ADMIN) == 200)


def test_a_stream_ends_soon_after_its_token_is_removed(
    fleet: Served, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ASK_AGAIN_S", 0.0)
    told = http.post("/v1/tokens", json={"name": "ci", "role": "viewer"}).json()["token"]
    with http.stream("GET", "/v1/events", headers={"Authorization": f"Bearer {told}"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": hello"
        assert http.post("/v1/migrations", json={"vm": "web1", "destination": "b"}).status_code == 202
        assert any(line.startswith("event:") for line in lines)
        assert http.delete("/v1/tokens/ci").status_code == 200
        fleet.outcome = "completed"
        eventually(lambda: http.get("/v1/migrations").json()["migrations"][0]["status"] == "completed")
        assert http.post("/v1/migrations", json={"vm": "web1", "destination": "a"}).status_code == 202
        for _ in lines:  # it ends by itself
            pass


def test_a_stream_goes_on_while_its_token_is_valid(http: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ASK_AGAIN_S", 0.0)
    started = http.post("/v1/migrations", json={"vm": "web1", "destination": "b"}).json()["id"]
    with http.stream("GET", f"/v1/migrations/{started}/events") as stream:
        assert [line for line in stream.iter_lines() if line == "event: end"]
