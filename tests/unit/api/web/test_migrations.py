"""The pages of migrations, and their event streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from sterna.api.web import live
from sterna.api.web.live import patch
from sterna.controller.records.events import Event
from sterna.domain.errors import Permanent
from sterna.domain.journal import Kind, Role
from tests.unit.api.web.browser import HOSTILE, Browser, events_of
from tests.unit.api.web.markup import wrong_with
from tests.unit.controller.conftest import World
from tests.unit.controller.requests import ID, MOVE, request
from tests.unit.domain.journals import Book, good_destination, good_source

PATH = f"/migrations/{ID}"
MIGRATION = MOVE.model_copy(update={"id": ID})


async def begun(world: World) -> None:
    await world.controller.migrate(request())


async def completed(world: World) -> None:
    await begun(world)
    world.a.write(good_source(MIGRATION))
    world.b.write(good_destination(MIGRATION))
    await world.pull()


async def test_one_that_goes_on_is_live(operator: Browser, world: World) -> None:
    await begun(world)
    await world.pull()
    page = await operator.get(PATH)
    (place,) = (one for one in page.tree.iter("div") if one.get("sse-connect"))
    since = await world.fleet.last_event()
    assert place.get("sse-connect") == f"{PATH}/stream?since={since}" and place.get("sse-close") == "end"
    assert {one.get("sse-swap") for one in place.iter() if one.get("sse-swap")} == {"now", "story"}
    assert "queued" in page.text and "Owner of the guest the source, a" in page.text
    assert page.tree.xpath(f"//noscript/a[@href='{PATH}']"), "without a script it is loaded again by hand"


async def test_one_that_has_ended_tells_its_story(viewer: Browser, world: World) -> None:
    await completed(world)
    page = await viewer.get(PATH)
    assert "completed" in page.text and "Guest downtime 48.0 ms" in page.text
    assert "P9 connect volumes 10.0 ms done" in page.text and "Memory sent 300.0 MiB" in page.text
    assert page.tree.xpath("//div[@class='drawing']/svg//text[contains(., 'connect volumes')]")
    assert not page.tree.xpath("//*[@sse-connect]") and not page.tree.xpath("//noscript")
    assert set(page.forms()) == {"/sign-out"}
    picture = await viewer.http.get(f"{PATH}/diagram.svg")
    assert picture.headers["content-type"] == "image/svg+xml" and picture.text.startswith("<svg ")
    listed = await viewer.get("/migrations?status=completed")
    assert PATH in listed.links() and "completed 100 %" in listed.text
    assert PATH not in (await viewer.get("/migrations?status=failed")).links()
    assert PATH in (await viewer.get("/migrations?vm=web1")).links()
    await viewer.get("/migrations/nope", 404)


async def test_what_is_different_in_the_definition(viewer: Browser, world: World) -> None:
    await completed(world)
    assert "earlier version" in (await viewer.get(PATH)).text
    change = {"where": "metadata/sterna", "before": HOSTILE, "after": "new"}
    book = Book(Role.SOURCE, migration=MIGRATION, first_seq=1000)
    book.write(Kind.NOTE, "M3", "copy-started", {"changes": {"live": [change], "persistent": []}})
    book.write(Kind.NOTE, "F10", "definition-edited", {"text": f"<domain>{HOSTILE}</domain>"})
    world.a.write(book)
    await world.pull()
    page = await viewer.get(PATH)
    assert "1 difference between the definition on a and the one that b was given" in page.text
    assert "metadata/sterna running guest" in page.text and "the epoch, which tells the newest copy" in page.text
    assert "somebody changed the VM's definition on a" in page.text and "<domain>" in page.text
    assert "<script>alert" not in page.answer.text and "\u202e" not in page.answer.text


async def test_why_one_has_failed_is_on_top(viewer: Browser, world: World) -> None:
    await begun(world)
    error = Permanent(f"b has no bridge {HOSTILE}", fix="create br-int there")
    book = Book(Role.SOURCE, migration=MIGRATION).accepted().status("preparing").intent("P3")
    book.failed("P3", error, final=True).status("rolling-back", f"b has no bridge {HOSTILE}").status("failed")
    world.a.write(book)
    await world.pull()
    page = await viewer.get(PATH)
    assert "<script>alert" not in page.answer.text and "\u202e" not in page.answer.text
    assert HOSTILE[:-1] in page.text and "rolling-back" in page.text


async def test_what_can_be_asked_of_it(operator: Browser, world: World) -> None:
    await world.controller.migrate(request())
    page = await operator.get(PATH)
    assert set(page.forms()) == {"/sign-out", f"{PATH}/abort", f"{PATH}/tune"}
    for limit in ("5", ""):
        await operator.send(page, f"{PATH}/tune", bandwidth_mib_s=limit)
    assert world.a.limits == [5 * 2**20, None]
    assert "bandwidth" in (await operator.send(page, f"{PATH}/tune", 422, bandwidth_mib_s="fast")).text
    await operator.send(page, f"{PATH}/abort")
    assert world.bus.asked("abort_migration") == 1


async def test_a_viewer_is_offered_nothing_and_may_nothing(viewer: Browser, world: World) -> None:
    await begun(world)
    page = await viewer.get(PATH)
    assert set(page.forms()) == {"/sign-out"}
    for what in ("abort", "post-copy", "tune"):
        await viewer.post(f"{PATH}/{what}", page.forms()["/sign-out"], 403)
    assert world.bus.asked("abort_migration") == 0


async def test_the_stream_brings_what_the_page_has(
    operator: Browser, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BETWEEN_S", 0.0)
    await completed(world)
    answer = await operator.http.get(f"{PATH}/stream?since=0", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    last = str(await world.fleet.last_event())
    assert events[-1] == ("end", last, "") and {id for _, id, _ in events[-3:]} == {last}
    parts = {name: data for name, _, data in events}
    for name in ("now", "story"):
        assert wrong_with(f"<!doctype html><html><body><h1>x</h1>{parts[name]}</body></html>") == []
    assert "completed" in parts["now"] and "connect volumes" in parts["story"]
    form_token = (await operator.get("/")).forms()["/sign-out"]["form_token"]
    assert form_token  # that of a patch is the page's: its forms work
    assert all(f'value="{form_token[0]}"' in data for name, _, data in events if 'name="form_token"' in data)


async def test_a_lost_connection_goes_on_behind_the_last_event(
    viewer: Browser, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BETWEEN_S", 0.0)
    await completed(world)
    last = await world.fleet.last_event()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
    events = events_of((await viewer.http.get(f"{PATH}/stream?since=0", headers=headers)).text)
    assert [name for name, _, _ in events] == ["now", "story", "end"], "the end, and nothing twice"
    assert (await viewer.http.get(f"{PATH}/stream", headers=headers | {"Last-Event-ID": "x"})).status_code == 400
    assert (await viewer.http.get("/migrations/nope/stream", headers=headers)).status_code == 404


async def test_two_patches_a_second_at_most(app: FastAPI, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much happens."""
    await completed(world)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def batches(_id: str, _after: int | None) -> AsyncIterator[list[Event]]:
        for number in range(1, 6):
            yield [Event(id=number, kind="step", data={}), Event(kind="progress", data={})]
        yield [Event(kind="progress", data={})]

    monkeypatch.setattr(live, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(world.controller, "event_batches", batches)
    state: dict[str, Any] = {"session": "x", "actor": None}
    browser = SimpleNamespace(app=app, scope={"state": state}, url=SimpleNamespace(path="/"))
    pieces = [piece async for piece in live._patches(browser, world.controller, ID, None)]  # type: ignore[arg-type]
    names = [[name for name, _, _ in events_of(piece.decode())] for piece in pieces]
    assert names == [["now", "story"]] * 5 + [["now"]]
    assert slept == [1.0] * 6


def test_a_patch_of_several_lines_is_one_event() -> None:
    assert patch("now", "<p>\n\nx\r</p>", 7) == b"event: now\ndata: <p>\ndata: \ndata: x\ndata: </p>\nid: 7\n\n"
    assert patch("end", "", None) == b"event: end\ndata:\n\n"
