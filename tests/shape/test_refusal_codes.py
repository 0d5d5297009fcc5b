"""Every code that is raised is in the catalogue; every code of the catalogue is raised, and named by a test.

mypy alone keeps unknown codes out (`domain/refusals`); that it does is shown here too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from sterna.domain.refusals import CATALOGUE, GROUPS, Code
from tests.parsing import parse

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
NOT_A_HOST = ("sterna/sim", "sterna/domain/refusals")
"""The simulated world raises what the real one does, and the catalogue raises nothing."""
LAB = ("tests/e2e", "tests/lab", "tests/openstack", "tests/chaos", "tests/soak", "tests/random_vms")
"""Tests that need a lab, which few run: every code is named by another one too."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """One file, and what the names in it stand for."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.tree = name, parse(text)
        self.constants: dict[str, ast.expr] = {}
        self.imported: dict[str, str] = {}
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value
            elif (
                isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value
            ):
                self.constants[statement.target.id] = statement.value
            elif isinstance(statement, ast.ImportFrom):
                names = {
                    alias.asname or alias.name: f"{statement.module}.{alias.name}" for alias in statement.names
                }
                self.imported |= names

    def calls(self, callee: str) -> Iterator[tuple[ast.Call, Function | None]]:
        """The calls of that name, each with the function it is in."""

        def within(node: ast.AST, function: Function | None) -> Iterator[tuple[ast.Call, Function | None]]:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == callee:
                    yield child, function
                yield from within(child, child if isinstance(child, Function) else function)

        return within(self.tree, None)


class Codes:
    """What the source gives to `Refusal(code=...)`."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = {module.name: module for module in modules}

    def raised(self) -> dict[str, str]:
        """Code -> the module that raises it. Fails for a code that cannot be read from the source."""
        found: dict[str, str] = {}
        for module in self.modules.values():
            for call, function in module.calls("Refusal"):
                code = next(keyword.value for keyword in call.keywords if keyword.arg == "code")
                found |= dict.fromkeys(self.values(code, module, function), module.name)
        return found

    def values(self, node: ast.expr, module: Module, function: Function | None) -> set[str]:
        """Every string that an expression can be."""
        match node:
            case ast.Constant(value=str(value)):
                return {value}
            case ast.Name(id=name):
                return self._named(name, module, function)
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in module.imported:
                other = self.modules[module.imported[owner]]
                return self.values(other.constants[name], other, None)
            case ast.Subscript(value=table) | ast.Call(func=ast.Attribute(value=table, attr="get")):
                entries = module.constants[ast.unparse(table)]
                assert isinstance(entries, ast.Dict)
                return {v for value in entries.values for v in self.values(value, module, None)}
        raise AssertionError(f"{module.name}:{node.lineno}: cannot tell which code {ast.unparse(node)} is")

    def _named(self, name: str, module: Module, function: Function | None) -> set[str]:
        if function is None or name in module.constants:
            return self.values(module.constants[name], module, None)
        parameters = [argument.arg for argument in function.args.args]
        if name in parameters:
            return self._given(parameters.index(name), name, module, function)
        found: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                found |= self.values(node.value, module, function)
        assert found, f"{module.name}: {name} of {function.name} is given no code"
        return found

    def _given(self, place: int, name: str, module: Module, function: Function) -> set[str]:
        found: set[str] = set()
        for call, caller in module.calls(function.name):
            by_name = [keyword.value for keyword in call.keywords if keyword.arg == name]
            found |= self.values((by_name or [call.args[place]])[0], module, caller)
        assert found, f"{module.name}: nobody calls {function.name}"
        return found


def modules_of(source: Path) -> list[Module]:
    files = {path.relative_to(source).with_suffix("").as_posix(): path for path in sorted(source.rglob("*.py"))}
    return [
        Module(name.replace("/", "."), path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if not name.startswith(NOT_A_HOST)
    ]


def codes_in(text: str) -> set[str]:
    """Codes that a test names, but for those that it has a fake raise."""
    tree = parse(text)
    raised = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "code":
            raised.add(id(node.value))
        elif isinstance(node, ast.Dict):
            raised |= {
                id(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "code"
            }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in CATALOGUE and id(node) not in raised
    }


RAISED = Codes(modules_of(SOURCE)).raised()


def test_every_code_is_described_once() -> None:
    described = [entry.code for group in GROUPS for entry in group.entries]
    assert sorted(described) == sorted(get_args(Code))


def test_every_code_that_is_raised_is_in_the_catalogue() -> None:
    assert {code: module for code, module in RAISED.items() if code not in CATALOGUE} == {}


def test_every_code_of_the_catalogue_is_raised() -> None:
    assert sorted(set(CATALOGUE) - set(RAISED)) == []


def test_every_code_is_named_by_a_test_that_needs_no_lab() -> None:
    files = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and not path.relative_to(ROOT).as_posix().startswith(LAB)
    ]
    named = {code for path in files for code in codes_in(path.read_text(encoding="utf-8"))}
    assert sorted(set(CATALOGUE) - named) == []


ELSEWHERE = Module("sterna.there", "FAR = 'far'")
RAISES = """
from sterna import there
TABLE = {1: "one", 2: there.FAR}
NEAR: str = "near"
def raised(code, which):
    Refusal(code=code, message="")
    Refusal(code=TABLE[which], message="")
    Refusal(code=NEAR, message="")
    chosen = TABLE.get(which)
    return Refusal(code=chosen, message="")
async def caller(self):
    raised("by-place", 1)
    raised(which=1, code="by-name")
"""


def test_codes_are_found_however_they_are_given() -> None:
    found = Codes([ELSEWHERE, Module("sterna.here", RAISES)]).raised()
    assert sorted(found) == ["by-name", "by-place", "far", "near", "one"]


def test_a_code_that_cannot_be_read_is_said() -> None:
    with pytest.raises(AssertionError, match=r"sterna.here:1: cannot tell"):
        Codes([Module("sterna.here", "Refusal(code=f'no-{x}', message='')")]).raised()


def test_a_code_that_only_a_fake_raises_is_not_tested() -> None:
    fakes = 'Refusal(code="vm-paused", message=""); fake({"code": "name-taken"}); assert codes == ["uuid-taken"]'
    assert codes_in(fakes) == {"uuid-taken"}


def test_mypy_refuses_a_code_that_is_not_in_the_catalogue(tmp_path: Path) -> None:
    lines = [
        "from sterna.domain.model import Refusal",
        'Refusal(code="vm-paused", message="")',
        'Refusal(code="vm-pausd", message="")',
        "def known(refusal: Refusal) -> bool:",
        '    return refusal.code == "vm-pausd"',
    ]
    file = tmp_path / "raises.py"
    file.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
    environment = {"MYPYPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    wrong = [line.split(":")[1] for line in done.stdout.splitlines() if ": error: " in line]
    assert wrong == ["3", "5"], done.stdout + done.stderr
