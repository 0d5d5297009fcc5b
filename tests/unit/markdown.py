"""Text of the code as Markdown."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

from pydantic import BaseModel

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from tests.parsing import parse

MADE = "<!-- Written by `make reference`; edit the code that it names. -->"


def cell(text: str) -> str:
    """One line for a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def paragraphs(text: str) -> str:
    """A docstring as paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def docstrings(model: type[BaseModel]) -> Mapping[str, str]:
    """What stands below each field."""
    body = cast(ast.ClassDef, parse(inspect.getsource(model)).body[0]).body
    return {
        field.target.id: " ".join(about.value.value.split())
        for field, about in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(about, ast.Expr)
        and isinstance(about.value, ast.Constant)
        and isinstance(about.value.value, str)
    }
