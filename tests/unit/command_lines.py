"""Command lines as documents show them, against the commands that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from sterna.cli.main import app
from sterna.lab.cli import app as lab_app

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(sterna [^`]+)`")
_END = re.compile(r"^(\||\|\||&&|&|;|>|>>|<|2>)$")


def shown(page: Path) -> Iterator[str]:
    """Each command line of a page: in its code blocks, and between backquotes."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in _BLOCK.finditer(text):
        lines = block[3].splitlines() if block[2] in ("", "sh", "console") else []
        yield from (line.strip() for line in lines if line.strip().startswith("sterna "))
    yield from _SPAN.findall(_BLOCK.sub("", text))


def words(line: str) -> list[str]:
    """Without `sterna`, comments, and what a shell does with its output."""
    made: list[str] = []
    for word in shlex.split(line, comments=True)[1:]:
        if _END.fullmatch(word):
            break
        made.append(word)
    return made


def trouble(given: list[str]) -> str:
    """What is wrong with these words behind `sterna`; '' for nothing."""
    command: Any = typer.main.get_command(app)
    path = ["sterna"]
    while given and (inner := getattr(command, "commands", None)) and not given[0].startswith("-"):
        name, *given = given
        lab = name == "lab" and len(path) == 1
        command = typer.main.get_command(lab_app) if lab else inner.get(name)
        path.append(name)
        if command is None:
            return f"there is no `{' '.join(path)}`"
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    if len(path) == 1:
        known |= {"--install-completion", "--show-completion"}
    unknown = [
        word for word in given if word.startswith("--") and word != "--" and word.partition("=")[0] not in known
    ]
    if "--" in given:
        unknown = [word for word in unknown if given.index(word) < given.index("--")]
    return f"`{' '.join(path)}` has no {', '.join(unknown)}" if unknown else ""
