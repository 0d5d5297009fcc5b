"""The inbox of a journal: whoever sends chooses the ids."""

from __future__ import annotations

import pytest

from sterna.adapters.sql.journal import _INBOX, SqlJournal
from tests.unit.journal_values import cast


@pytest.fixture
def journal() -> SqlJournal:
    return SqlJournal.at(None)


def test_a_senders_ids_are_its_own(journal: SqlJournal) -> None:
    """Ids can be guessed: whoever used one first would have another's message taken for a repeat, or for done."""
    theirs, forged = cast("m1/R4", sender="a"), cast("m1/R4", sender="x")
    crafted = cast("a m1/R4", sender="x")
    assert [journal.inbox_put(c) for c in (forged, crafted, theirs)] == [True] * 3
    journal.inbox_done(forged)
    journal.inbox_done(crafted)
    journal.inbox_done(crafted)
    assert journal.inbox() == [theirs]


def test_what_an_earlier_version_received_is_done_once(journal: SqlJournal) -> None:
    old = cast("c1", sender="a")
    journal._put(_INBOX, old.id, old)
    assert journal.inbox() == [old]
    journal.inbox_done(old)
    assert journal.inbox() == []
