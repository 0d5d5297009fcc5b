"""docs/contributing/folders.svg draws the imports between the folders: each one that exists, and no other."""

from __future__ import annotations

import ast
import re

from tests.parsing import parse
from tests.shape.prose import ROOT

DRAWING = ROOT / "docs/contributing/folders.svg"
EVERYWHERE = {"kit", "domain"}
"""Every folder may import these, so the drawing leaves them out."""
IN_PART = {"bootstrap": {"cli", "api", "adapters"}, "setup": {"bootstrap"}, "support": {"bootstrap"}}
"""The drawing shows these imports of them, and says that there are others."""


def imports() -> set[tuple[str, str]]:
    found = set()
    for file in (ROOT / "src/sterna").rglob("*.py"):
        folder = file.relative_to(ROOT / "src/sterna").parts[0].removesuffix(".py")
        for node in ast.walk(parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {(folder, name.split(".")[1]) for name in names if name.startswith("sterna.")}
    return {(one, other) for one, other in found if one != other}


def test_the_drawing_shows_the_imports() -> None:
    text = DRAWING.read_text(encoding="utf-8")
    drawn = set(re.findall(r"<title>(\w+) imports (\w+)</title>", text))
    left_out = {(a, b) for a, b in imports() if b in EVERYWHERE or b not in IN_PART.get(a, {b})}
    assert drawn == imports() - left_out


def test_every_folder_is_drawn() -> None:
    text = DRAWING.read_text(encoding="utf-8")
    there = {path.stem for path in (ROOT / "src/sterna").iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert {name for name in there if not re.search(rf">{name}<", text)} == set()
