"""Each contract of `.importlinter` is broken by one line in a copy of the source, and says so.

A contract that nothing can break checks nothing.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.parsing import parse

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sterna"

BROKEN_BY = {
    "layers": ("rpc/client.py", "import sterna.agent.daemon"),
    "circles": (
        "domain/model.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sterna.domain import forecast",
    ),
    "adapters-know-ports-only": ("adapters/vif/ovs.py", "import sterna.migration.context"),
    "adapters-apart": ("adapters/vif/ovs.py", "import sterna.adapters.files.storage"),
    "only-bootstrap-chooses": ("cli/main.py", "import sterna.adapters.sealing"),
    "agent-alone": ("bootstrap/process.py", "import sterna.api.app"),
    "controller-alone": ("bootstrap/process.py", "import sterna.adapters.libvirt.hypervisor"),
    "pages-apart": ("api/web/pages.py", "import sterna.api.compute.faults"),
    "halves": ("migration/source/copy.py", "import sterna.migration.destination.taps"),
    "sim-storeys": ("sim/world/things.py", "import sterna.sim.libvirt.streams"),
    "cli-by-http": ("cli/main.py", "import sterna.controller.controller"),
    "compute-apart": ("api/compute/call.py", "import sterna.api.fleet"),
    "routes-apart": ("api/fleet.py", "import sterna.api.compute.faults"),
    "lab-alone": ("lab/host.py", "import sterna.kit.command\nimport sterna.ports.clock"),
    "kit-knows-errors": ("kit/threads.py", "import sterna.domain.model"),
    "xml-is-pure": ("adapters/libvirt/xml/disk_places.py", "import libvirt"),
}
"""Contract -> the file, and what is written at its end."""


def contracts() -> list[str]:
    """Those of `.importlinter`."""
    settings = ConfigParser()
    settings.read(ROOT / ".importlinter")
    return [name.rpartition(":")[2] for name in settings.sections() if ":contract:" in name]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source and its contracts."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(SOURCE, folder / "sterna", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    """`lint-imports` of one contract."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--cache-dir", ".cache", "--contract", contract],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_each_contract_is_broken_by_something() -> None:
    assert sorted(contracts()) == sorted(BROKEN_BY)


@pytest.mark.parametrize("contract", BROKEN_BY)
def test_a_contract_that_is_broken_says_so(copy: Path, contract: str) -> None:
    name, line = BROKEN_BY[contract]
    file = copy / "sterna" / name
    before = file.read_text()
    file.write_text(f"{before}\n{line}\n")
    try:
        answer = lint(copy, contract)
    finally:
        file.write_text(before)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "0 kept, 1 broken" in answer.stdout


def test_a_folder_without_a_layer_is_noticed(copy: Path) -> None:
    (copy / "sterna" / "strange.py").write_text("")
    try:
        answer = lint(copy, "layers")
    finally:
        (copy / "sterna" / "strange.py").unlink()
    assert answer.returncode == 1 and "strange" in answer.stdout


PURE = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "enum", "functools",
    "hashlib", "heapq", "hmac", "ipaddress", "itertools", "math", "operator", "posixpath", "re", "statistics",
    "typing", "urllib.parse",
    "pydantic",
}  # fmt: skip
"""All that the domain may import besides itself: nothing that waits, reads, writes, or knows what time it is."""


def imported(text: str) -> Iterator[str]:
    """The top-level packages that a module imports, wherever in it."""
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def impure(text: str) -> set[str]:
    """What a module of the domain imports and may not."""
    return {
        name
        for name in imported(text)
        if not {name, name.partition(".")[0]} & PURE and not f"{name}.".startswith("sterna.domain.")
    }


def test_the_domain_imports_what_is_on_its_list() -> None:
    found = {
        str(path.name): sorted(bad)
        for path in (SOURCE / "domain").rglob("*.py")
        if (bad := impure(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line", ["import time", "from asyncio import sleep", "import sterna.ports.clock", "import httpx2"]
)
def test_what_is_not_on_the_list_is_noticed(line: str) -> None:
    assert impure(f"def hidden():\n    {line}\n")
