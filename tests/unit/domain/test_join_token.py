"""The token that lets a host join: whole or refused, and never repeated in a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import BadRequest
from sterna.domain.trust.join_token import JoinToken, read

SECRET = "0123456789abcdef" * 2
TOKEN = JoinToken(host="host1", fingerprint="ab" * 32, secret=SECRET)


def test_a_token_is_one_word_and_can_be_read_again() -> None:
    assert not any(c.isspace() for c in TOKEN.word)
    assert read(f"  {TOKEN.word}\n") == TOKEN


def test_a_token_in_a_log_shows_no_secret() -> None:
    assert SECRET not in repr(TOKEN) + str(TOKEN) + f"{TOKEN}"


@pytest.mark.parametrize(
    "word",
    [
        "",
        "host1",
        TOKEN.word[:-1],
        TOKEN.word + "0",
        TOKEN.word.replace("host1", "-x"),
        TOKEN.word.replace("ab", "AB"),
        TOKEN.word.rpartition(".")[0],
        TOKEN.word + ".more",
        TOKEN.word.replace("sterna1", "sterna"),
    ],
)
def test_a_damaged_token_is_refused_without_repeating_it(word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(word)
    assert SECRET[:-1] not in caught.value.message + caught.value.fix
    assert "sterna host add" in caught.value.fix


def test_a_token_of_a_newer_form_asks_for_an_upgrade() -> None:
    with pytest.raises(BadRequest) as caught:
        read(TOKEN.word.replace("sterna1", "sterna2"))
    assert "upgrade" in caught.value.fix


@given(st.text(max_size=200))
def test_whatever_is_typed_is_read_or_refused(word: str) -> None:
    with pytest.raises(BadRequest):
        read(word)
