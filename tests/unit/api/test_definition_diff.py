"""`GET /v1/migrations/{id}/definition-diff`."""

from __future__ import annotations

from sterna.domain.journal import Kind, Role
from tests.unit.api.rest import Api, body
from tests.unit.controller.requests import ID, MOVE

from ..domain.journals import Book


async def test_what_is_different_in_the_definition(api: Api) -> None:
    await api.http.post("/v1/migrations", json=body())
    change = {"where": "devices/disk[vda]/source/@file", "before": "/a/x", "after": "/b/x"}
    data = {"changes": {"live": [change], "persistent": [change]}}
    book = Book(Role.SOURCE, migration=MOVE.model_copy(update={"id": ID})).accepted()
    api.world.a.write(book.status("migrating").write(Kind.NOTE, "M3", "copy-started", data))
    await api.world.pull()
    diff = await api.get(f"/v1/migrations/{ID}/definition-diff")
    reason = "the disk's path on the destination"
    assert diff["recorded"] and diff["edited"] == "" and diff["notes"] == [] and diff["left_out"] == 0
    assert diff["differences"] == [change | {"live": True, "persistent": True, "reason": reason}]
    assert (await api.problem("GET", "/v1/migrations/nope/definition-diff", 404))["status"] == 404
