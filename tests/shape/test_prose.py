"""Documents and docstrings are in short sentences of plain English."""

from __future__ import annotations

import re
from statistics import median

import pytest

from tests.shape.prose import LONG, docstrings, of_docstrings, of_pages, pages, prose, sentences, share_of_long

MEDIAN, SHARE_LONG = 16, 0.02
"""Words in the median sentence; share of sentences of more than LONG words."""
NOT_ENGLISH = (
    r"\bis success\b",
    r"\bagain is (nothing|success)\b",
    r"\bfor good\b",
    r"\ball the same\b(?! (way|size|kind))",
    r"\bwhat is left over\b",
    r"\banew\b",
    r"\bis no error\b",
    r"\bwithout a word\b",
    r"\b(says|tells) nothing\b",
    r"\bnobody (else|listens|knows|needs|says|waits|asks)\b",
    r"\bnobody's\b",
    r"\b(is|are|was|were) told\b",
    r"\blets? go of\b",
    r"\bstands? still\b",
    r"\bstandstill\b",
)
"""Phrases that a reader has to guess. They become: "is not an error", "idempotent", "permanently", "anyway",
"leftovers", "again", "silently", "is unknown", "no process", "is notified", "releases", "is paused"."""

NOT_IN_DOCUMENTS = (
    r"\bfor ever\b",
    r"\bgo(es)? on\b",
    r"\bmeanwhile\b",
    r"\bit is said\b",
    r"\b(is|are) asked for\b",
    r"\bmade ahead\b",
    r"\bno more of\b",
    r"\bto and fro\b",
    r"\bstands? on\b",
    r"\bin its turn\b",
)
"""Phrases that hand-written documents do not use either. They become: "forever", "continues", "in the meantime",
"is requested", "created in advance", "back and forth", "is based on"."""


@pytest.mark.parametrize("found", [of_pages(), of_docstrings()], ids=["documents", "docstrings"])
def test_sentences_are_short(found: list[str]) -> None:
    assert len(found) > 1000
    assert median(len(sentence.split()) for sentence in found) <= MEDIAN
    assert share_of_long(found) <= SHARE_LONG, sorted(found, key=lambda s: -len(s.split()))[:5]


@pytest.mark.parametrize("phrase", NOT_ENGLISH)
def test_no_phrase_has_to_be_guessed(phrase: str) -> None:
    written = [*of_docstrings(), *of_pages()]
    assert [sentence for sentence in written if re.search(phrase, sentence, re.IGNORECASE)] == []


@pytest.mark.parametrize("phrase", NOT_IN_DOCUMENTS)
def test_documents_use_the_common_words(phrase: str) -> None:
    texts = [page.read_text(encoding="utf-8") for page in pages()]
    written = [
        one for text in texts if "written by `make reference`" not in text.lower() for one in sentences(prose(text))
    ]
    assert [sentence for sentence in written if re.search(phrase, sentence, re.IGNORECASE)] == []


def test_a_long_sentence_is_counted() -> None:
    assert share_of_long(["word " * (LONG + 1), "short"]) == 0.5


def test_what_a_page_says_is_apart_from_its_tables_and_code() -> None:
    code, table = "```sh\nnot this one\n```", "| nor | this |"
    page = f"# Title\n\nOne sentence here. And `two` of them.\n\n{code}\n\n{table}\n\n- A list item\n"
    assert list(sentences(prose(page))) == ["One sentence here.", "And `two` of them.", "A list item"]


def test_docstrings_of_all_kinds_are_read() -> None:
    source = '"""Of the module."""\nclass A:\n    """Of a class."""\n'
    source += '    async def f(self):\n        """Of a method."""\n'
    assert sorted(docstrings(source)) == ["Of a class.", "Of a method.", "Of the module."]


def test_the_pages_are_found() -> None:
    names = {page.name for page in pages()}
    assert {"README.md", "first-migration.md", "walkthrough.md"} <= names
    assert "field-notes.md" not in names
