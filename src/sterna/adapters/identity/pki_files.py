"""The files with which libvirt and QEMU encrypt, below /etc/pki: copies of this host's own certificate, and of the
list of revoked ones.

Written when the host joins, where that is wanted, and again after each renewal and with each new list. What
somebody else has written is never replaced unasked: the record beside the certificate knows what was written from
here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from sterna.adapters.identity import private_files
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.revoked import RevokedFile
from sterna.domain.errors import BadRequest, Conflict, NotFound
from sterna.domain.model import Value
from sterna.domain.trust.pki import (
    ASIDE,
    DH_PARAMETERS,
    FILES,
    FOLDERS,
    REVOKED_FILES,
    Part,
    PkiFile,
    mode_of,
)

RECORD = "pki.json"


class Written(Value):
    """What was written from here."""

    v: int = 1
    pki: str
    group: int | None = None
    """Number of the group that reads QEMU's keys; None: root alone."""
    digests: dict[str, str] = {}
    """SHA-256 of each file, by its path below `pki`."""


class PkiFiles:
    """The copies of one host's certificate. Methods raise BadRequest, Conflict or NotFound, each with a fix."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of this host's own certificate."""
        self._folder, self._own, self._revoked = folder, OwnFiles(folder), RevokedFile(folder).path

    @property
    def wanted(self) -> bool:
        """Were copies written from here?"""
        return (self._folder / RECORD).exists()

    def foreign(self, pki: Path) -> list[Path]:
        """Files of somebody else's in the places of ours, but for DH parameters: those serve as well as ours.
        Raises BadRequest for folders that others can change."""
        for folder in _folders(pki):
            _check_folder(folder)
        return [pki / file.path for file in self._of_others(pki) if file.part is not Part.DH]

    def _of_others(self, pki: Path) -> list[PkiFile]:
        known = self._record()
        ours = known.digests if known is not None and known.pki == str(pki) else {}
        found = []
        for file in self._files():
            digest = _digest(pki / file.path)
            if digest is not None and digest not in (ours.get(file.path), self._digest_of_own(file)):
                found.append(file)
        return found

    def write(self, pki: Path, group: int | None, *, replace: bool = False) -> list[Path]:
        """Write all of them; what was replaced, which is kept beside. Raises Conflict for files of somebody else's,
        and writes nothing then, unless they are to be replaced."""
        foreign = self.foreign(pki)
        kept = [aside for aside in map(_aside, foreign) if os.path.lexists(aside)]
        if foreign and not replace:
            raise Conflict(
                f"not written by Sterna: {', '.join(map(str, foreign))}",
                fix=f"find out whose they are; --overwrite replaces them, and keeps them beside as *{ASIDE}",
            )
        if kept:
            raise Conflict(f"{kept[0]} was kept before", fix=f"move all *{ASIDE} elsewhere, or remove them")
        for folder, mode in FOLDERS.items():
            _make_folder(pki / folder, mode)
        for path in foreign:
            path.rename(_aside(path))
        self._write_all(Written(pki=str(pki), group=group), leave={file.path for file in self._of_others(pki)})
        return foreign

    def renew(self) -> list[Path]:
        """Write those again that are still as they were written from here; the others, which were left alone."""
        known = self._record()
        if known is None:
            return []
        foreign = self.foreign(Path(known.pki))
        self._write_all(known, leave={file.path for file in self._of_others(Path(known.pki))})
        return foreign

    def _files(self) -> tuple[PkiFile, ...]:
        return (*FILES, *REVOKED_FILES) if self._revoked.exists() else FILES

    def _write_all(self, told: Written, leave: set[str]) -> None:
        """The record last: a file that it does not know yet is one of ours by its content."""
        with private_files.alone(self._folder):  # a renewal, or a new list at the same time
            self._write_in_turn(told, leave)

    def _write_in_turn(self, told: Written, leave: set[str]) -> None:
        files = [file for file in self._files() if file.path not in leave]
        contents = {file.path: self._content(file) for file in files}
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        for file in files:
            group = told.group if file.part is Part.KEY and file.mode & 0o040 else None
            mode = mode_of(file, grouped=group is not None)
            private_files.write(Path(told.pki) / file.path, contents[file.path], mode, group=group)
        record = told.model_copy(update={"digests": told.digests | digests})
        private_files.write(self._folder / RECORD, record.model_dump_json(indent=1).encode())

    def _content(self, file: PkiFile) -> bytes:
        if file.part is Part.DH:
            return DH_PARAMETERS.encode()
        return private_files.read(self._source(file), fix="let it join: `sterna agent join -`")

    def _source(self, file: PkiFile) -> Path:
        own = self._own
        sources = {Part.CA: own.ca_file, Part.CERTIFICATE: own.certificate_file, Part.KEY: own.key_file}
        return sources.get(file.part, self._revoked)

    def _digest_of_own(self, file: PkiFile) -> str | None:
        """Of the one in force: a write that was interrupted has written it, and no record of it."""
        if file.part is Part.DH:
            return hashlib.sha256(DH_PARAMETERS.encode()).hexdigest()
        return _digest(self._source(file))

    def _record(self) -> Written | None:
        path = self._folder / RECORD
        try:
            return Written.model_validate_json(private_files.read(path, fix=""))
        except NotFound:
            return None
        except ValidationError as error:
            raise BadRequest(f"{path} is damaged", fix="remove it, and let the host join again") from error


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)


def _folders(pki: Path) -> Iterator[Path]:
    """All that lead to the files, from the root on."""
    yield from reversed(pki.parents)
    yield pki
    yield from (pki / folder for folder in FOLDERS)


def _check_folder(folder: Path) -> None:
    """Raises BadRequest for one that is no folder of root's: somebody else could have keys written elsewhere."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadRequest(f"{folder} cannot be looked at: {error.strerror}", fix="run this as root") from error
    if not stat.S_ISDIR(found.st_mode):
        raise BadRequest(f"{folder} is not a folder", fix="name another one with --pki, or make it one")
    sticky = found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky):
        raise BadRequest(f"other users can change {folder}", fix=f"chown root {folder}; chmod go-w {folder}")


def _make_folder(folder: Path, mode: int) -> None:
    try:
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not folder.is_dir():
            folder.mkdir(mode=mode)
            folder.chmod(mode)  # whatever the umask
    except OSError as error:
        raise BadRequest(f"{folder} cannot be made: {error.strerror}", fix="run this as root") from error


def _digest(path: Path) -> str | None:
    """None if there is no such file. Raises BadRequest if it is not a regular file: a link may lead elsewhere."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadRequest(f"{path} is no ordinary file", fix="find out what it is, and move it away")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}", fix="run this as root") from error
