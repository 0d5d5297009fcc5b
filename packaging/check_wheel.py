#!/usr/bin/python3
"""packaging/check_wheel.py WHEEL SOURCE: fails where a file of the source is not in the wheel, and names it."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

SHARED = ("examples", "prometheus")
"""Folders of packaging/ that come along."""


def wanted(source: Path) -> Iterator[tuple[str, Path]]:
    """The end of each file's name in the wheel, and the file."""
    for path in (source / "src/sterna").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(source / "src").as_posix(), path
    for folder in SHARED:
        for path in (source / "packaging" / folder).iterdir():
            yield f".data/data/share/sterna/{folder}/{path.name}", path
    yield ".dist-info/licenses/LICENSE", source / "LICENSE"


def missing(wheel: Path, source: Path) -> list[str]:
    """The files that are not there, or differ."""
    with zipfile.ZipFile(wheel) as archive:
        version = archive.namelist()[-1].partition(".dist-info/")[0]
        names = {name.removeprefix(version): name for name in archive.namelist()}
        return [
            end for end, path in wanted(source) if end not in names or archive.read(names[end]) != path.read_bytes()
        ]


if __name__ == "__main__":
    found = missing(Path(sys.argv[1]), Path(sys.argv[2]))
    if found:
        sys.exit(f"the wheel lacks: {', '.join(found)}")
