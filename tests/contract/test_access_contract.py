"""Tokens and the audit log, on SQLite and on PostgreSQL: ports.access, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.domain.access import UserRole
from sterna.domain.errors import Conflict, NotFound, SternaError
from sterna.domain.tokens import Token
from sterna.kit.digests import digest_of
from sterna.ports.access import LogPage
from tests.contract.records import AT, asked


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    yield fleet
    await fleet.close()


def token(n: int, name: str = "") -> Token:
    return Token(
        id=f"{n:012x}",
        name=name or f"t{n}",
        role=UserRole.OPERATOR,
        digest=digest_of(str(n)),
        created_at=AT,
        created_by="user:root",
        expires_at="2026-04-01T00:00:00+00:00",
    )


async def test_tokens_are_kept_whole_until_they_are_removed(fleet: SqlFleet) -> None:
    for n in (3, 1, 2):
        await fleet.add_token(token(n))
    assert await fleet.tokens() == [token(1), token(2), token(3)]
    assert await fleet.token(token(2).id) == token(2)
    assert await fleet.token("0" * 12) is None
    assert await fleet.remove_token("t2") == token(2)
    assert await fleet.token(token(2).id) is None and await fleet.tokens() == [token(1), token(3)]
    with pytest.raises(NotFound):
        await fleet.remove_token("t2")


async def test_a_name_has_one_token_also_when_two_make_it_at_once(fleet: SqlFleet, database: str) -> None:
    other = SqlFleet.open(database)
    made = [f.add_token(token(n, "ci")) for n, f in enumerate((fleet, other) * 3)]
    done = await asyncio.gather(*made, return_exceptions=True)
    assert sum(one is None for one in done) == 1
    assert all(one is None or isinstance(one, Conflict) for one in done)
    assert len(await fleet.tokens()) == 1
    await other.close()


async def test_the_log_has_every_line_with_its_answer_newest_first(fleet: SqlFleet) -> None:
    first = asked(1, body={"vm": "vm1", "may": ["pause"], "name": "Küste"})
    for line in (first, asked(2, actor="token:ci"), asked(3, action="abort")):
        await fleet.log_asked(line)
    await fleet.log_answered("r1", 202, AT)
    found = await fleet.log_page(LogPage())
    assert [(line.asked.request, line.status) for line in found] == [("r3", None), ("r2", None), ("r1", 202)]
    assert found[-1].asked == first
    for page, requests in (
        (LogPage(limit=2), ["r3", "r2"]),
        (LogPage(before=found[1].number), ["r1"]),
        (LogPage(actor="token:ci"), ["r2"]),
        (LogPage(action="abort"), ["r3"]),
        (LogPage(target="vm1"), ["r1"]),
        (LogPage(request="r2"), ["r2"]),
        (LogPage(since="2026-01-02"), ["r3", "r2"]),
        (LogPage(actor="user:root", action="migrate"), ["r1"]),
    ):
        assert [line.asked.request for line in await fleet.log_page(page)] == requests


async def test_the_database_itself_refuses_to_change_the_log(fleet: SqlFleet, database: str) -> None:
    """Nor to remove lines of the last 30 days, or answers alone."""
    now = datetime.now(UTC)
    lines = [asked(n, at=(now - timedelta(days=days)).isoformat()) for n, days in enumerate((31, 29), 1)]
    for line in lines:
        await fleet.log_asked(line)
        await fleet.log_answered(line.request, 202, line.at)
    engine = open_database(database)
    changes = [
        "UPDATE requests SET actor = 'nobody'",
        "UPDATE requests SET at = '2000-01-01'",
        "DELETE FROM requests",
        "UPDATE answers SET status = 200",
        "DELETE FROM answers",
    ]
    if engine.dialect.name == "postgresql":
        changes += ["TRUNCATE requests", "TRUNCATE answers"]
    for change in changes:
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(change))
    engine.dispose()
    with pytest.raises((SternaError, DBAPIError), match="append-only"):
        await fleet.prune_log(now.isoformat())
    assert [(x.asked, x.status) for x in await fleet.log_page(LogPage())] == [(one, 202) for one in lines[::-1]]
