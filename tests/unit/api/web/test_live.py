"""A page's event stream over a real connection, of a migration that goes on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from sterna.api import streams
from sterna.api.web import live
from sterna.domain.access import UserRole
from tests.unit.api.clients import bearing
from tests.unit.api.web.browser import events_of
from tests.unit.cli.served import Served, served
from tests.unit.controller.requests import ID


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(live, "BETWEEN_S", 0.02)
    with served() as one:
        one.pace_s = 0.01
        yield one


@pytest.fixture
def http(fleet: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fleet.api, timeout=30, trust_env=False, headers=bearing()) as http:
        yield http


def begin(http: httpx2.Client) -> None:
    assert http.post("/v1/migrations", json={"id": ID, "vm": "web1", "destination": "b"}).status_code == 202


def follow(http: httpx2.Client, last: str = "") -> list[tuple[str, str, str]]:
    """Until the stream ends."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with http.stream("GET", f"/migrations/{ID}/stream?since=0", headers=headers) as stream:
        assert stream.headers["cache-control"] == "no-cache" and stream.headers["x-accel-buffering"] == "no"
        return events_of("".join(stream.iter_text()))


def test_it_is_followed_to_its_end(http: httpx2.Client) -> None:
    begin(http)
    events = follow(http)
    now = [data for name, _, data in events if name == "now"]
    for word in ("preparing", "migrating", "completed"):
        assert any(f'class="state {word}"' in data for data in now), word
    assert any('data-point="[' in data and "MiB/s" in data for data in now), "the chart gets its points"
    ids = [int(id) for _, id, _ in events if id]
    assert ids == sorted(ids) and events[-1][0] == "end"
    story = next(data for name, _, data in reversed(events) if name == "story")
    assert "connect volumes" in story and "release the source" in story and "<svg" in story


def test_after_a_lost_connection_nothing_is_missing(fleet: Served, http: httpx2.Client) -> None:
    fleet.cut = [12, 9]
    begin(http)
    events, connections = follow(http), 1
    while events[-1][0] != "end":
        before = events
        events = follow(http, before[-1][1])
        connections += 1
        assert [id for _, id, _ in before if id][-1] <= events[-1][1] or len(events[-1][1]) > len(before[-1][1])
    assert connections >= 2
    story = next(data for name, _, data in reversed(events) if name == "story")
    rows = {f"P{n}" for n in range(1, 13)} | {f"F{n}" for n in range(1, 12)}
    assert all(f'<td data-label="Row">{row}</td>' in story for row in rows)


def test_a_user_has_so_many_streams_and_no_more(http: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and programs count together."""
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    begin(http)
    with http.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()  # one that is dropped ends its stream
        assert next(lines) == ": hello"
        assert http.get(f"/migrations/{ID}/stream").status_code == 503
        viewer = http.get(f"/migrations/{ID}/stream", headers=bearing(UserRole.VIEWER))
        assert viewer.status_code == 200
