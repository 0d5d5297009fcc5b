"""How long the sentences of documents and docstrings are, and phrases that are not English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.parsing import parse

ROOT = Path(__file__).parents[2]
LONG = 35
"""Words."""
_CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(\d])|\n\s*\n|\n\s*(?:[-*|#>]|\d+\.)\s?")
_ABBREVIATED = re.compile(r"\b(e\.g|i\.e|etc|vs|No)\.\s")


def prose(markdown: str) -> str:
    """A page without code blocks, tables and headings."""
    text = _CODE.sub("\n\n", markdown)
    lines = (line for line in text.splitlines() if not re.match(r"\s*(\||#|<!--|!\[)", line))
    return "\n".join(lines)


def sentences(text: str) -> Iterator[str]:
    """Each sentence, list items and paragraphs apart."""
    for part in _ENDS.split(_ABBREVIATED.sub(r"\1 ", text)):
        words = re.sub(r"^\s*(?:[-*]|\d+\.)\s", "", part).split()
        if len(words) > 2:
            yield " ".join(words)


def docstrings(source: str) -> Iterator[str]:
    """Of modules, classes and functions, without what is indented in them."""
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def pages() -> list[Path]:
    """What users and contributors read; the lab notebook is a diary."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return [page for page in found if page.exists() and "lab-notebook" not in page.parts]


def of_pages() -> list[str]:
    """All sentences of the documents."""
    return [s for page in pages() for s in sentences(prose(page.read_text(encoding="utf-8")))]


def of_docstrings(folder: str = "src/sterna") -> list[str]:
    """All sentences of the docstrings."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return [s for file in files for text in docstrings(file.read_text(encoding="utf-8")) for s in sentences(text)]


def share_of_long(found: list[str]) -> float:
    """The share of sentences with more than LONG words."""
    return sum(len(s.split()) > LONG for s in found) / len(found)
