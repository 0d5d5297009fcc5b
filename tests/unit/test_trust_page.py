"""docs/explanation/trust.md: each thing that somebody cannot do names its tests, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.parsing import parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/trust.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| Cannot ") and line != "| Cannot | Test |"]
FOOTHOLDS = (
    "A tenant in a VM", "A user on a host", "One agent", "The network", "The bus", "The database", "A controller",
)  # fmt: skip


def names_in(path: Path) -> set[str]:
    nodes = ast.walk(parse(path.read_text(encoding="utf-8")))
    functions = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_foothold_has_its_lines() -> None:
    parts = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
    assert tuple(parts) == FOOTHOLDS
    assert all("Can:\n" in text and "| Cannot " in text for text in parts.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_what_cannot_be_done_names_its_tests(row: str) -> None:
    _, claim, tests, _ = row.split("|")
    assert claim.strip().endswith(".") and NAMED.search(tests)
    assert NAMED.sub("", tests).strip(" ,") == ""


@pytest.mark.parametrize("file, name", sorted(set(NAMED.findall(PAGE))), ids=str)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_a_claim_stands_in_a_table() -> None:
    """Where its test has to be named."""
    outside = [line for line in PAGE.splitlines() if "Cannot " in line and not line.startswith("|")]
    assert len(ROWS) > 30 and outside == []
