"""`sterna notify`, as typed."""

from __future__ import annotations

import json

from sterna.controller.notifications.endpoint import Chosen
from sterna.domain.errors import Unreachable
from sterna.domain.notifications.events import CHOSEN
from tests.unit.controller.receiving import Receiver

from .served import Served


def test_notify(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    assert "no endpoint is set up" in sterna("notify", "list").stderr
    assert "no endpoint is set up" in sterna("notify", "test", code=5).stderr
    receiver = Receiver()
    chosen = [Chosen(name, f"https://{name}.example", CHOSEN) for name in ("chat", "pager")]
    fleet.controller.notifications.use(chosen, receiver)
    told = sterna("notify", "list").stdout
    assert "https://pager.example" in told and "never" in told
    told = sterna("notify", "test", "pager").stdout
    assert "accepted pager (https://pager.example): status 204 after" in told and "as you like" in told
    receiver.answers = lambda one: 403 if one.endpoint == "pager" else Unreachable("it is \x1b[31maway")
    told = sterna("notify", "test", code=11).stdout
    assert "refused  pager (https://pager.example): status 403" in told
    assert "failed   chat (https://chat.example): it is \\x1b[31maway" in told
    answer = json.loads(sterna("notify", "test", "pager", "--json", code=11).stdout)
    assert answer["tested"][0]["status"] == 403
    assert json.loads(sterna("notify", "list", "--json").stdout)["endpoints"][0]["name"] == "chat"
    sterna("notify", "test", "nobody", code=5)
