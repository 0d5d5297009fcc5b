"""How a request was answered is logged once its answer is on its way: nobody waits for a line of the log."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send

from sterna.api.access import AuthenticationMiddleware

from ..controller.conftest import World
from .clients import ACCESS

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
    door = AuthenticationMiddleware(app, world.controller, ACCESS, frozenset({"/v1/health"}))
    if END in messages:
        await door(dict(SCOPE), receive, send)
    else:
        with pytest.raises(LookupError):
            await door(dict(SCOPE), receive, send)
    assert lines == [told]
