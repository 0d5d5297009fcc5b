"""The contents of the bundle, and the file: without secrets, readable by its owner only."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sterna.cli.client import ApiAway, ApiError, NoSuchId
from sterna.domain.errors import BadRequest, SternaError
from sterna.kit import redaction

MODE = 0o600


@dataclass
class Bundle:
    """Texts by name, as they will be written."""

    name: str
    """Of the folder in it."""
    secrets: set[str] = field(default_factory=set)
    """Known ones: replaced wherever they stand."""
    texts: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """What could not be had, and why."""

    def add(self, name: str, text: str) -> None:
        """A text."""
        self.texts[name] = redaction.text(text)

    def add_document(self, name: str, document: Any) -> None:
        """A document, as JSON."""
        made = redaction.document(document)
        self.texts[name] = json.dumps(made, indent=1, ensure_ascii=False, default=str) + "\n"

    def attempt(self, what: str, act: Callable[[], None]) -> bool:
        """Do it; what cannot be had is named in the bundle, and the rest goes on."""
        try:
            act()
        except (SternaError, ApiAway, ApiError, NoSuchId, OSError, ImportError) as error:
            why = error.message if isinstance(error, SternaError) else str(error) or type(error).__name__
            self.missing.append(redaction.text(f"{what}: {why}"))
            return False
        return True

    def written(self) -> dict[str, bytes]:
        """Each file's content, without the secrets that are known by now."""
        about = [
            f"{self.name}: made by `sterna support-bundle`",
            "",
            "In it:",
            *(f"  {name}" for name in self.texts),
        ]
        about += ["", "Missing:", *(f"  {one}" for one in self.missing)] if self.missing else []
        about += ["", "Passwords, tokens and keys are replaced by ***. Names, addresses and paths are not changed."]
        texts = {"README.txt": "\n".join(about) + "\n", **self.texts}
        return {name: redaction.without(text, self.secrets).encode() for name, text in texts.items()}

    def packed(self) -> bytes:
        """As a tar archive, compressed."""
        buffer, now = io.BytesIO(), int(time.time())
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in self.written().items():
                member = tarfile.TarInfo(f"{self.name}/{name}")
                member.size, member.mode, member.mtime = len(content), MODE, now
                archive.addfile(member, io.BytesIO(content))
        return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """A new file that only its owner may read. Raises BadRequest where it is there, OSError where it cannot be
    written: nothing is left then."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    except FileExistsError as error:
        raise BadRequest(f"{path} already exists", fix="name another file with --out") from error
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
