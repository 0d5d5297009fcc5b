"""The settings file of a process: its present and its future content, and how it is written."""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sterna.adapters.identity import private_files
from sterna.config import AgentSettings, ControllerSettings, load
from sterna.domain.errors import BadRequest
from sterna.kit import redaction
from sterna.setup.toml_edit import Changes, Key, edited, value_of, written

S = TypeVar("S", AgentSettings, ControllerSettings)
MODE, GROUP_MODE = 0o600, 0o640


@dataclass(frozen=True)
class SettingsFile:
    """One that is there, or will be. Methods raise BadRequest, each with what would fix it."""

    path: Path
    text: str = ""
    mode: int | None = None
    """None: it is not there."""
    owner: int = 0
    group: int = 0

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """The present file. Without one: an empty one."""
        path = path.absolute()
        path = path.resolve() if path.is_symlink() else path
        try:
            found = path.stat()
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path)
        except UnicodeDecodeError as error:
            raise BadRequest(f"{path} is not text", fix="give another file with --config") from error
        except OSError as error:
            fix = "run this as root, or give another file with --config"
            raise BadRequest(f"{path} cannot be read: {error.strerror}", fix=fix) from error
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadRequest(f"{path} is not TOML: {error}", fix="correct that line") from error
        return cls(path, text, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    @property
    def is_new(self) -> bool:
        """Is there none yet?"""
        return self.mode is None

    def get(self, *key: str) -> Any:
        """What it has for this key; None where it has nothing."""
        return value_of(tomllib.loads(self.text), key)

    def needed(self, wanted: Changes) -> Changes:
        """Those of the values that it does not have yet."""
        return {key: value for key, value in wanted.items() if self.get(*key) != value}

    def with_changes(self, changes: Changes) -> str:
        """The text it will have."""
        try:
            return edited(self.text, changes)
        except BadRequest as error:
            raise BadRequest(f"{self.path}: {error.message}", fix=error.fix) from error

    def described(self, changes: Changes, group: int | None = None) -> Iterator[str]:
        """What will be written, line by line, without passwords."""
        if self.is_new:
            yield f"write {self.path} (new, mode {self.mode_for(group):04o})"
        else:
            closed = f" (mode {self.mode:04o} -> {self.mode_for(group):04o})" if self.is_open else ""
            yield f"change {self.path}{closed}; everything else in it is kept"
        for key, value in changes.items():
            name, before = ".".join(key), self.get(*key)
            now = redaction.text(written(value))
            if before is None:
                yield f"  {name} = {now}"
            else:
                yield f"  {name} = {now}  (was {redaction.text(repr(before))})"

    @property
    def is_open(self) -> bool:
        """May others read it, who are neither its owner nor of its group? It may hold passwords."""
        return self.mode is not None and bool(self.mode & 0o027)

    def mode_for(self, group: int | None = None) -> int:
        """What it will have: closed to others, and otherwise as it is. `group`: that of a process that reads it."""
        if self.mode is not None:
            return self.mode & 0o640 | 0o600
        return MODE if group is None else GROUP_MODE

    def check(self, kind: type[S], text: str) -> S:
        """The settings that this text would be. Raises BadRequest where the process would not start with them."""
        with tempfile.TemporaryDirectory(prefix="sterna-setup-") as folder:
            beside = Path(folder) / self.path.name
            try:
                private_files.write(beside, text.encode())
                return load(kind, beside)
            except BadRequest as error:
                raise BadRequest(error.message.replace(str(beside), str(self.path)), fix=error.fix) from error

    def check_writable(self) -> None:
        """Before anything is asked or done. Raises BadRequest where this user may not write it."""
        there = next(folder for folder in self.path.parents if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            fix = "run this as root, or give another file with --config"
            raise BadRequest(f"this user may not write {self.path}", fix=fix)

    def make_folder(self) -> None:
        """The folder that it is in."""
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(mode=0o755, parents=True)
                self.path.parent.chmod(0o755)
        except OSError as error:
            fix = "run this as root, or give another file with --config"
            raise BadRequest(f"{self.path.parent} cannot be created: {error.strerror}", fix=fix) from error

    def write(self, text: str, group: int | None = None) -> None:
        """Whole or not at all. Owner and group of a file that is there are kept."""
        self.make_folder()
        keeps = group if self.is_new else self.group
        private_files.write(self.path, text.encode(), self.mode_for(group), group=keeps)
        if not self.is_new and self.owner != self.path.stat().st_uid:
            os.chown(self.path, self.owner, -1)


def key(dotted: str) -> Key:
    """`bus.url` as a key."""
    return tuple(dotted.split("."))
