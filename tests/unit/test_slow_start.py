"""A controller that waits for the resolver before it serves says so."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from sterna.bootstrap import controller, process
from sterna.config import ControllerSettings
from sterna.config.access import AccessSettings


class Log:
    """Takes errors."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.came = threading.Event()

    def error(self, message: str, **_: object) -> None:
        self.said.append(message)
        self.came.set()


def test_a_resolver_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    log, usual = Log(), socket.getaddrinfo

    def slow(*args: Any, **more: Any) -> Any:
        assert log.came.wait(10), "nothing is said while it hangs"
        return usual(*args, **more)

    monkeypatch.setattr(process, "SLOW_S", 0.05)
    monkeypatch.setattr(process, "log", log)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    access = AccessSettings.model_validate({"socket": ""})
    settings = ControllerSettings.model_construct(listen="localhost:0", access=access)
    with controller.sockets_of(settings, None) as sockets:
        assert sockets
    assert log.said == ["the resolver, for `listen`, does not answer yet; waiting: nothing within 0.05 s"]
