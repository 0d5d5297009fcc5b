"""A process that waits for the resolver, or for files, before it serves says so."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.bootstrap import ca_desk, controller, identity, process
from sterna.config import ControllerSettings
from sterna.config.access import AccessSettings
from sterna.config.bus import BusSettings, BusTls, IdentitySettings
from sterna.domain.trust.identities import Kind


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


FILES = {"ca_file": Path("/p/ca.pem"), "cert_file": Path("/p/own.pem"), "key_file": Path("/p/own.key")}
OWN = IdentitySettings.model_validate({"enrol": "external"} | FILES)


class Answered(Exception):
    """The disk does, at last."""


def looks_at_its_own() -> None:
    identity.check_own(OWN, Kind.CONTROLLER)


def looks_at_the_ca() -> None:
    access = AccessSettings.model_validate({"ca_folder": "/p/ca"})
    ca_desk.authority_of(ControllerSettings.model_construct(access=access, identity=OWN))


def reads_those_of_the_bus() -> None:
    bus = BusSettings(url="tls://127.0.0.1:9", tls=BusTls.model_validate(FILES))
    asyncio.run(process.join_bus(bus, "c", "c", IdentitySettings()))


def reads_those_of_the_api() -> None:
    controller.served_with(ControllerSettings.model_construct(access=AccessSettings(), identity=OWN))


@pytest.mark.parametrize(
    ("begin", "where", "what", "said"),
    [
        (looks_at_its_own, identity, "faults_of", "/p/own.pem"),
        (looks_at_the_ca, Authority, "open", "/p/ca"),
        (reads_those_of_the_bus, ssl, "create_default_context", "/p/ca.pem"),
        (reads_those_of_the_api, ssl, "create_default_context", "[identity] and [access]"),
    ],
)
def test_a_disk_that_hangs_is_named(
    begin: Callable[[], None], where: Any, what: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()

    def slow(*_: object, **__: object) -> None:
        assert log.came.wait(10), "nothing is said while it hangs"
        raise Answered

    monkeypatch.setattr(process, "SLOW_S", 0.05)
    monkeypatch.setattr(process, "log", log)
    monkeypatch.setattr(where, what, slow)
    with pytest.raises(Answered):
        begin()
    assert len(log.said) == 1 and said in log.said[0] and "does not answer yet" in log.said[0]
