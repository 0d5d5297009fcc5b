"""Tokens of a cloud's users: Keystone is asked once for each, and about a few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest

from sterna.controller.intents.external_users import ExternalUsers
from sterna.domain.errors import Temporary, Unauthenticated, Unreachable
from sterna.domain.trust import bounds
from sterna.ports.users import ExternalUser

from .fakes import HandClock

MINA = ExternalUser(
    name="mina@Default",
    project="service@Default",
    roles=(),
    user_id="1",
    project_id="2",
    expires_at="2100-01-01T00:00:00.000000Z",
)


class SlowDirectory:
    """Implements ports.users.UserDirectory; answers when it is told to."""

    def __init__(self) -> None:
        self.asked = Counter[str]()
        self.goes_on = asyncio.Event()
        self.fault: Unreachable | None = None

    async def user(self, token: str) -> ExternalUser | None:
        self.asked[token] += 1
        async with asyncio.timeout(20):
            await self.goes_on.wait()
        if self.fault is not None:
            raise self.fault
        return None if token.startswith("unknown") else MINA


def external_users_of(directory: SlowDirectory) -> ExternalUsers:
    return ExternalUsers(directory, HandClock(), "service@Default", {})


async def asking(
    external_users: ExternalUsers, tokens: Iterable[str], origin: str = "10.0.0.1"
) -> list[asyncio.Task[ExternalUser]]:
    """One request with each token, once all of them wait."""
    tasks = [asyncio.create_task(external_users.user(token, origin)) for token in tokens]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_a_token_is_asked_about_once_for_all_who_send_it_meanwhile() -> None:
    directory = SlowDirectory()
    external_users = external_users_of(directory)
    tasks = await asking(external_users, ["t"] * 50)
    directory.goes_on.set()
    assert await asyncio.gather(*tasks) == [MINA] * 50
    assert directory.asked == {"t": 1}


async def test_about_a_few_tokens_at_a_time_and_the_others_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_UNPROVEN", 2)
    directory = SlowDirectory()
    external_users = external_users_of(directory)
    tasks = await asking(external_users, ["unknown-1", "unknown-2"])
    with pytest.raises(Temporary, match="Keystone is asked about 2 other tokens") as refused:
        async with asyncio.timeout(5):
            await external_users.user("t", "10.0.0.1")
    assert refused.value.delay_s is not None
    tasks += await asking(external_users, ["unknown-1"])
    directory.goes_on.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended] == [Unauthenticated] * 3
    assert await external_users.user("t", "10.0.0.1") == MINA
    assert directory.asked == {"unknown-1": 1, "unknown-2": 1, "t": 1}


async def test_one_origin_takes_no_place_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Junk from one address: users elsewhere are let in, and it has its share again later."""
    monkeypatch.setattr(bounds, "MOST_UNPROVEN", 8)
    monkeypatch.setattr(bounds, "SHARE_OF_AN_ORIGIN", 2)
    directory = SlowDirectory()
    external_users = external_users_of(directory)
    junk = await asking(external_users, [f"unknown-{n}" for n in range(20)], "10.0.0.66")
    assert directory.asked.total() == 4
    users = await asking(external_users, ["t", "u"], "10.0.0.1")
    assert {"t", "u"} <= set(directory.asked)
    directory.goes_on.set()
    assert await asyncio.gather(*users) == [MINA] * 2
    ended = Counter(type(one) for one in await asyncio.gather(*junk, return_exceptions=True))
    assert ended == {Temporary: 16, Unauthenticated: 4}
    again = await asking(external_users, [f"unknown-{n}" for n in range(4)], "10.0.0.66")
    ended = Counter(type(one) for one in await asyncio.gather(*again, return_exceptions=True))
    assert ended == {Unauthenticated: 4}


async def test_who_leaves_takes_no_answer_from_others() -> None:
    directory = SlowDirectory()
    leaves, stays = await asking(external_users_of(directory), ["t", "t"])
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    directory.goes_on.set()
    assert await stays == MINA
    assert directory.asked == {"t": 1}


async def test_an_error_is_told_to_all_who_waited_and_to_nobody_later() -> None:
    directory = SlowDirectory()
    external_users = external_users_of(directory)
    directory.fault = Unreachable("Keystone does not answer")
    tasks = await asking(external_users, ["t", "t"])
    directory.goes_on.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended] == [Unreachable] * 2
    directory.fault = None
    assert await external_users.user("t", "10.0.0.1") == MINA
