"""A folder's fixture hides no other of the same name: tests below it would silently run with less than they say."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.parsing import parse

TESTS = Path(__file__).parents[1]
MEANT = {f"unit/api/{folder}/conftest.py": {"database"} for folder in ("compute", "web")}
"""How pages and answers are made does not depend on the kind of database: these tests run on SQLite alone."""


def fixtures(source: str) -> set[str]:
    """The names of the fixtures that a module defines."""
    return {
        node.name
        for node in parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def hidden(folder: Path) -> dict[str, set[str]]:
    """For each conftest.py below `folder`, its fixtures that one of a parent folder has as well."""
    names = {path: fixtures(path.read_text("utf-8")) for path in sorted(folder.rglob("conftest.py"))}
    found = {
        str(path.relative_to(folder)): {
            name
            for above, others in names.items()
            if above != path and path.is_relative_to(above.parent)
            for name in own & others
        }
        for path, own in names.items()
    }
    return {path: hiding for path, hiding in found.items() if hiding}


def test_no_fixture_hides_that_of_a_parent_folder_unless_it_is_meant_to() -> None:
    assert hidden(TESTS) == MEANT


def test_one_that_hides_another_is_found(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    for path in (tmp_path / "conftest.py", tmp_path / "unit" / "conftest.py"):
        path.write_text("@pytest.fixture(params=[1])\ndef database(): ...\n\n\ndef helper(): ...\n")
    assert hidden(tmp_path) == {"unit/conftest.py": {"database"}}
