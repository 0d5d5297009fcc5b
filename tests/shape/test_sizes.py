"""No file and no function is longer than a reader can keep in mind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parsing import parse

ROOT = Path(__file__).parents[2]
LONGEST_FILE, LONGEST_FUNCTION = 400, 50
"""Lines."""
FILES = [path for folder in ("src", "tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


def long_functions(source: str) -> Iterator[str]:
    """Name and length of each function that is too long, decorators not counted."""
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{node.name}: {lines} lines"


def test_the_files_are_found() -> None:
    assert {"main.py", "test_sizes.py"} <= {path.name for path in FILES}


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)): list(long_functions(path.read_text("utf-8"))) for path in FILES}
    assert {path: names for path, names in long.items() if names} == {}


@pytest.mark.parametrize("lines, found", [(LONGEST_FUNCTION, []), (LONGEST_FUNCTION + 1, ["f: 51 lines"])])
def test_a_long_function_is_found(lines: int, found: list[str]) -> None:
    body = "    pass\n" * (lines - 1)
    assert list(long_functions(f"async def f():\n{body}")) == found
    assert list(long_functions(f"class A:\n  def f(self):\n{body}")) == found
