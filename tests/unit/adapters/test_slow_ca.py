"""A CA whose folder hangs: hosts wait for their turn once, and what has begun is not cut short for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.adapters.identity import desk as module
from sterna.adapters.identity.authority import Authority, Signed
from sterna.adapters.identity.desk import LocalDesk
from sterna.domain.errors import Temporary
from sterna.domain.trust.enrolment import Register
from sterna.domain.trust.joining import JoinAnswer, JoinRequest

from .identities import HOST1, join, request_of


class SlowFolder:
    """What the CA does takes until the gate is open."""

    def __init__(self, authority: Authority, patch: pytest.MonkeyPatch) -> None:
        self._redeem, self.gate = authority.redeem, threading.Event()
        self.begun = 0
        self.has_begun = threading.Event()
        patch.setattr(authority, "redeem", self.redeem)

    def redeem(self, host: str, secret: str, request: str) -> Signed:
        self.begun += 1
        self.has_begun.set()
        self.gate.wait(20)
        return self._redeem(host, secret, request)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


@pytest.fixture
def slow(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowFolder]:
    folder = SlowFolder(authority, monkeypatch)
    yield folder
    folder.gate.set()


def joining(authority: Authority) -> JoinRequest:
    token = authority.invite(HOST1, [])
    return JoinRequest(host=HOST1.name, secret=token.secret, request=request_of(HOST1.name).decode())


async def test_hosts_wait_for_a_ca_that_hangs_once_and_not_for_each_other(
    authority: Authority, slow: SlowFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.2)
    monkeypatch.setattr(module, "_LIMIT_S", 0.3)
    request, desk = joining(authority), LocalDesk(authority)
    answers = await asyncio.gather(*(desk.join(request, "") for _ in range(8)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Temporary] * 8
    assert slow.begun == 1
    slow.gate.set()
    assert isinstance(await desk.join(request, ""), JoinAnswer)


async def test_what_has_begun_is_not_cut_short_by_the_limit_of_a_turn(
    authority: Authority, slow: SlowFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    request, desk = joining(authority), LocalDesk(authority)
    joins = asyncio.create_task(desk.join(request, ""))
    done, _ = await asyncio.wait({joins}, timeout=0.5)
    assert not done and slow.has_begun.is_set()
    slow.gate.set()
    assert isinstance(await joins, JoinAnswer)


async def test_a_renewal_that_gets_no_answer_is_refused_for_now_and_asked_for_again(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA's disk hangs while the request is proven: a thread of its own, too."""
    own = join(authority, HOST1, tmp_path / "own")
    register, answers = authority.register, threading.Event()

    def hang() -> Register:
        answers.wait(20)
        return register()

    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    monkeypatch.setattr(authority, "register", hang)
    desk, request = LocalDesk(authority), own.renewal()
    with pytest.raises(Temporary):
        await desk.renew(request, "")
    answers.set()
    monkeypatch.setattr(authority, "register", register)
    monkeypatch.setattr(module, "_LIMIT_S", 20.0)
    assert isinstance(await desk.renew(request, ""), JoinAnswer)
