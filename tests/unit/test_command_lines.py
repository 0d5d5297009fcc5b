"""Every `sterna ...` that a document or the playbook shows is a command, with options that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.command_lines import shown, trouble, words
from tests.unit.pages import PAGES, ROOT

TYPED = [page for page in PAGES if page.name not in ("CHANGELOG.md", "cli.md") and "lab-notebook" not in page.parts]
"""What was typed once, and what is made from the commands themselves, is left out."""


@pytest.mark.parametrize("page", TYPED, ids=[page.relative_to(ROOT).as_posix() for page in TYPED])
def test_what_a_page_shows_can_be_typed(page: Path) -> None:
    found = {line: wrong for line in shown(page) if (wrong := trouble(words(line)))}
    assert found == {}


def test_the_page_for_users_of_other_tools_is_read() -> None:
    lines = list(shown(ROOT / "docs/how-to/coming-from.md"))
    assert len(lines) > 40 and "sterna vm show VM" in lines


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("sterna vm show VM", ""),
        ("sterna agent --config FILE", ""),
        ("sterna lab up", ""),
        ("sterna hosts | grep --colour x   # all --of them", ""),
        ("sterna migrate VM --into HOST", "`sterna migrate` has no --into"),
        ("sterna move VM", "there is no `sterna move`"),
        ("sterna host kill X", "there is no `sterna host kill`"),
    ],
)
def test_a_wrong_command_is_found(line: str, wrong: str) -> None:
    assert trouble(words(line)) == wrong
