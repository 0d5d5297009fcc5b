"""A copy of the source to which something made up is added, as a contributor would add it."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sterna"
AT_MOST = 4
"""Files of the source that one more thing of a known sort may touch, new ones included."""


class Copy:
    """A copy of `src`, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "sterna"
        shutil.copytree(SOURCE, self.source, ignore=shutil.ignore_patterns("__pycache__"))

    def write(self, file: str, text: str) -> None:
        """A new file."""
        path = self.source / file
        assert not path.exists()
        path.write_text(text, encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        """New text at the end of a file."""
        path = self.source / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    def insert(self, file: str, before: str, text: str) -> None:
        """New text before the only place in a file that says `before`."""
        self.replace(file, before, text + before)

    def replace(self, file: str, old: str, new: str) -> None:
        """Something else at the only place in a file that says `old`."""
        path = self.source / file
        before = path.read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{file} says {old!r} {before.count(old)} times"
        path.write_text(before.replace(old, new), encoding="utf-8")

    def touched(self) -> list[str]:
        """The files that differ from the source, or are new."""
        files = (path.relative_to(self.source) for path in self.source.rglob("*.py"))
        return sorted(
            file.as_posix()
            for file in files
            if not (SOURCE / file).exists() or not filecmp.cmp(SOURCE / file, self.source / file, shallow=False)
        )

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Python on the copy, and on the tests' helpers."""
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.source.parent,
            env={"PYTHONPATH": f"{self.source.parent}:{ROOT}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
