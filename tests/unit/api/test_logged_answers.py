"""How a request was answered is logged once its answer is on its way: nobody waits for a line of the log.

Requests that are not allowed are logged sparingly.
"""

from __future__ import annotations

from collections import Counter

import pytest
from starlette.types import Message, Receive, Scope, Send

from sterna.api.access import AuthenticationMiddleware, Entrance
from sterna.api.sessions import Sessions
from sterna.domain.access import UserRole

from ..controller.conftest import World
from .clients import ACCESS, bearing
from .rest import Api, body

START: Message = {"type": "http.response.start", "status": 202, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"b"}
SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/health",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 1),
    "query_string": b"",
}


@pytest.mark.parametrize(
    ("messages", "told"), [([START, PIECE, END], (3, 202)), ([START, PIECE], (2, 202)), ([], (0, 500))]
)
async def test_the_line_is_written_behind_the_answer(
    world: World, messages: list[Message], told: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the answer breaks off: 500 where it had not begun."""
    sent: list[Message] = []
    lines: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["logged"] = True
        for message in messages:
            await send(message)
        if END not in messages:
            raise LookupError("a bug")

    async def answered(request: str, status: int) -> None:
        lines.append((len(sent), status))

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    monkeypatch.setattr(world.controller.users, "answered", answered)
    door = AuthenticationMiddleware(app, world.controller, Entrance(ACCESS, frozenset({"/v1/health"}), Sessions()))
    if END in messages:
        await door(dict(SCOPE), receive, send)
    else:
        with pytest.raises(LookupError):
            await door(dict(SCOPE), receive, send)
    assert lines == [told]


async def test_requests_that_are_not_allowed_do_not_fill_the_log(api: Api) -> None:
    """A few of each user's are in it, without what came with them; later on again."""
    huge = body(options={"x": "y" * 3_000})
    for _ in range(40):
        for role in (UserRole.VIEWER, UserRole.NEUTRON):
            answer = await api.http.post("/v1/migrations", json=huge, headers=bearing(role))
            assert answer.status_code == 403
    lines = (await api.get("/v1/log?limit=200"))["lines"]
    assert Counter(x["actor"] for x in lines) == {"token:viewer": 10, "token:neutron": 10}
    assert {(x["action"], x["status"], str(x["body"])) for x in lines} == {("migrate", 403, "{}")}
    await api.http.post("/v1/migrations", json=body(), headers=bearing(UserRole.OPERATOR))
    api.world.clock.ms += 3_600_000
    for _ in range(40):
        await api.http.post("/v1/hosts/b/declare-dead", headers=bearing(UserRole.VIEWER))
    lines = (await api.get("/v1/log?limit=200"))["lines"]
    assert Counter(x["action"] for x in lines) == {"migrate": 21, "declare-dead": 6}
