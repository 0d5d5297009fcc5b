"""Text of the code as Markdown."""

from __future__ import annotations

import inspect

import sterna.__main__  # noqa: F401 - its commands join those of the CLI

MADE = "<!-- Written by `make reference`; edit the code that it names. -->"


def cell(text: str) -> str:
    """One line for a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def paragraphs(text: str) -> str:
    """A docstring as paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))
