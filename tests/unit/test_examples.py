"""What the documents name: commands and options that exist, settings that are accepted, codes of the catalogue."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from sterna.api.migration_models import MigrationIn
from sterna.api.plans import PlanIn
from sterna.api.rules import RuleIn
from sterna.cli.main import app
from sterna.config import AgentSettings, ControllerSettings, load
from sterna.domain.errors import BadRequest
from sterna.domain.refusals import CATALOGUE
from sterna.lab.cli import app as lab_app
from tests.unit.pages import PAGES, ROOT

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
BEHIND = re.compile(r"\s#|\s[|&>;]|\|\||\)")
READ = [page for page in PAGES if page.name != "CHANGELOG.md" and "lab-notebook" not in page.parts]
CODE = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`")
NEEDED: dict[str, Any] = {"host": "host1", "migration": {"address": "192.0.2.1"}}
CLOUD = {"auth_url": "https://cloud.example:5000/v3", "username": "sterna", "password": "x"}
"""What settings must have, where an example shows a part of them."""


def blocks(language: str, text: str) -> Iterator[str]:
    for indent, kind, block in BLOCK.findall(text):
        if kind == language:
            yield "\n".join(line.removeprefix(indent) for line in block.splitlines())


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `sterna` command in the page's shell examples."""
    for block in blocks("sh", text):
        for line in block.replace("\\\n", "").splitlines():
            for found in re.finditer(r"(?:^|[|&;(]\s*)(sterna\s.*)", line):
                words = shlex.split(BEHIND.split(found[1])[0])
                yield words[1:]


def trouble_with(words: list[str]) -> str:
    """What is wrong with a command; '' for nothing."""
    roots: dict[str, Any] = {"lab": typer.main.get_command(lab_app)}
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        command = roots.pop(name, None) or command.commands.get(name)
        if command is None:
            return f"there is no command {name!r}"
    if "--" in rest:
        rest = rest[: rest.index("--")]
    known = {name for param in command.params for name in [*param.opts, *getattr(param, "secondary_opts", [])]}
    wrong = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known | {"--help"}]
    return f"there is no option {', '.join(wrong)}" if wrong else ""


def columns(text: str, header: str) -> Iterator[str]:
    """The cells of the columns of tables that have this header."""
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if header in cells:
            column = cells.index(header)
        elif not cells:
            column = None
        elif column is not None and column < len(cells):
            yield cells[column]


def codes(text: str) -> list[str]:
    """What stands in the columns of tables that are headed `Code`."""
    return [code for cell in columns(text, "Code") for code in CODE.findall(cell)]


def messages(text: str) -> Iterator[str]:
    """What stands in the columns `Line` (of a log) and `Message`, without the names in it."""
    for header in ("Line", "Message"):
        for cell in columns(text, header):
            for quoted in re.findall(r"`([^`]+)`", cell):
                yield from (part.strip() for part in re.split(r"\b[A-Z]{4,}\b|\.\.\.", quoted) if part.strip())


@pytest.mark.parametrize("page", READ, ids=[page.relative_to(ROOT).as_posix() for page in READ])
def test_codes_are_in_the_catalogue(page: Path) -> None:
    assert set(codes(page.read_text(encoding="utf-8"))) - CATALOGUE.keys() == set()


def bodies(text: str) -> Iterator[dict[str, Any]]:
    """The JSON that the page's `curl` examples send."""
    for block in blocks("sh", text):
        for found in re.findall(r"-d '(\{.*\})'", block):
            yield json.loads(re.sub(r"'\$\w+'", str(UUID(int=1)), found))


def test_bodies_are_accepted() -> None:
    sent = [body for page in READ for body in bodies(page.read_text(encoding="utf-8"))]
    assert sent
    for body in sent:
        (RuleIn if "kind" in body else MigrationIn if "id" in body else PlanIn).model_validate(body)


def test_messages_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/sterna").rglob("*.py"))
    quoted = {message for page in READ for message in messages(page.read_text(encoding="utf-8"))}
    assert len(quoted) > 10
    assert {message for message in quoted if message not in code} == set()


@pytest.mark.parametrize("page", READ, ids=[page.relative_to(ROOT).as_posix() for page in READ])
def test_commands_exist(page: Path) -> None:
    found = [(words, trouble_with(words)) for words in commands(page.read_text(encoding="utf-8"))]
    assert [(words, why) for words, why in found if why] == []


def accepted(settings: dict[str, Any], file: Path) -> None:
    """Raises BadRequest where neither process takes these settings, or this part of them."""
    try:
        with_cloud = {"access": {"keystone": CLOUD}} if settings.keys() & {"nova", "compute"} else {}
        file.write_text(_toml(with_cloud | settings), encoding="utf-8")
        load(ControllerSettings, file)
    except BadRequest:
        whole = NEEDED | settings
        whole["migration"] = NEEDED["migration"] | settings.get("migration", {})
        if "neutron" in str(settings) or "cinder" in str(settings):
            whole["openstack"] = CLOUD | settings.get("openstack", {})
        file.write_text(_toml(whole), encoding="utf-8")
        load(AgentSettings, file)


def _toml(table: dict[str, Any], path: str = "") -> str:
    own = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    inner = [_toml(value, f"{path}{key}.") for key, value in table.items() if isinstance(value, dict)]
    return "\n".join([f"[{path[:-1]}]" if path else "", *own, *inner])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    return "[" + ", ".join(map(_value, value)) + "]" if isinstance(value, list) else json.dumps(value)


@pytest.mark.parametrize("page", READ, ids=[page.relative_to(ROOT).as_posix() for page in READ])
def test_settings_are_accepted(page: Path, tmp_path: Path) -> None:
    for block in blocks("toml", page.read_text(encoding="utf-8")):
        settings = tomllib.loads(block)
        if settings.keys() != {"api"}:  # the command line's own file
            accepted(settings, tmp_path / "settings.toml")


def test_wrong_settings_are_found(tmp_path: Path) -> None:
    for wrong in ({"listne": "x"}, {"network": {"ovsdb": "tcp:name:1"}}, {"bus": {"url": "http://x"}}):
        with pytest.raises(BadRequest):
            accepted(wrong, tmp_path / "settings.toml")


def test_a_wrong_example_is_found() -> None:
    page = "```sh\nsterna migrat x\nsterna migrate x --too y | jq .\nfor v in $(sterna vms --jason); do\n```\n"
    page += "```sh\nsterna lab exec host1 -- virsh list --all  # a comment\nsudo -u x true\n```\n"
    assert [trouble_with(words) for words in commands(page)] == [
        "there is no command 'migrat'",
        "there is no option --too",
        "there is no option --jason",
        "",
    ]
    table = (
        "| Code | Do |\n|---|---|\n| `no-such-code`, `vm-paused` | `not-one` |\n\n| What |\n|---|\n| `not-one` |\n"
    )
    assert codes(table) == ["no-such-code", "vm-paused"]
    text = "1. x\n\n    ```toml\n    a = 1\n    ```\n"
    assert list(blocks("toml", text)) == ["a = 1"]
