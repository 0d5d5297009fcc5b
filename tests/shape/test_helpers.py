"""A file of tests has tests: what several files use is in a module beside them, or in a fixture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def is_a_file_of_tests(module: str) -> bool:
    return module.rpartition(".")[2].startswith("test_")


def modules_of(statement: ast.stmt) -> Iterator[str]:
    """What this statement may import: modules, and names of which each may be one."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        yield statement.module or ""
        yield from (f"{statement.module or ''}.{alias.name}" for alias in statement.names if is_package(statement))


def is_package(statement: ast.ImportFrom) -> bool:
    """Do the names come from a folder of tests? Those of a module may be functions called `test_...`."""
    return statement.level > 0 or (statement.module or "").split(".")[0] == "tests"


def imported_tests(source: str) -> list[str]:
    """The files of tests that this source imports."""
    statements = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt))
    return [module for each in statements for module in modules_of(each) if is_a_file_of_tests(module)]


@pytest.mark.parametrize(
    "line",
    [
        "from tests.saga.test_migration import run",
        "from .test_migration import run",
        "from test_chains import image",
        "from . import test_migration",
        "from tests.saga import test_migration",
        "import tests.saga.test_migration",
        "import test_chains as chains",
        "def late():\n    from ..saga.test_migration import run",
    ],
)
def test_an_import_of_a_file_of_tests_is_found(line: str) -> None:
    assert imported_tests(line) != []


@pytest.mark.parametrize("line", ["from tests.saga.playing import run", "import pytest"])
def test_other_imports_are_not(line: str) -> None:
    assert imported_tests(line) == []


def test_no_helper_is_imported_from_a_file_of_tests() -> None:
    found = {str(path.relative_to(TESTS)): imported_tests(path.read_text("utf-8")) for path in TESTS.rglob("*.py")}
    assert {path: modules for path, modules in found.items() if modules} == {}
