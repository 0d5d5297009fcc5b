"""The instances directory: nothing outside it is made or removed, and no link is followed on the way. Blocking."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sterna.adapters.files.usage import identity_by
from sterna.domain.errors import Conflict, Permanent
from sterna.domain.files import Created, same_file
from sterna.domain.model import Disk
from sterna.kit.opening import WrongKind, opened

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class InstancesDir:
    """One host's."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))

    def inside(self, path: str) -> Path:
        """The path, if it is below the instances directory by itself and no directory on the way is a link.

        Raises Permanent otherwise.
        """
        fix = f"local disks must lie below {self.root}"
        plain = Path(os.path.normpath(path or "/"))
        if not os.path.isabs(path) or str(plain) != path.rstrip("/") or "\0" in path:
            raise Permanent(f"{path!r} is not a plain absolute path", fix=fix)
        if self.root not in plain.parents:
            raise Permanent(f"{plain} is outside {self.root}", fix=fix)
        if Path(os.path.realpath(plain.parent)) != Path(os.path.realpath(self.root)) / plain.parent.relative_to(
            self.root
        ):
            raise Permanent(f"a symbolic link lies on the way to {plain}", fix=fix)
        return plain

    def plan(self, vm_uuid: str, disks: tuple[Disk, ...]) -> Created:
        """What P8 would have to make. Raises Conflict where a file is there, Permanent for a path outside."""
        wanted = [self.inside(str(self.root / vm_uuid))]
        files = []
        for disk in disks:
            path = self.inside(disk.path or "")
            if path.exists() or path.is_symlink():
                raise Conflict(f"disk {disk.target}: {path} already exists", fix="remove it if nothing needs it")
            files.append(str(path))
            wanted += [parent for parent in path.parents if parent != self.root and self.root in parent.parents]
        missing = sorted({str(d) for d in wanted if not d.exists()}, key=len)
        return Created(directories=tuple(missing), files=tuple(files))

    def make_directory(self, directory: str) -> None:
        """One that is there already is taken. Raises Conflict for what is not a directory, Permanent."""
        path = self.inside(directory)
        try:
            path.mkdir(mode=0o755)
            path.chmod(0o755)  # QEMU must enter it, and this process's umask is its own affair
        except FileExistsError:
            if not path.is_dir() or path.is_symlink():
                raise Conflict(f"{path} exists and is not a directory") from None
        except OSError as error:
            raise Permanent(f"cannot make {path}: {error.strerror}") from error

    def reserve(self, wanted: str, mark: str) -> None:
        """A new file that holds `mark`. One that holds it already was reserved before.

        Raises Conflict where another file is there, OSError, Permanent.
        """
        path = self.inside(wanted)
        with self.parent(path) as parent:
            if parent is None:
                raise Permanent(f"{path.parent} is not there")
            try:
                fd = os.open(path.name, _NEW, 0o600, dir_fd=parent)
            except FileExistsError:
                if _holds(parent, path.name, mark):
                    return
                raise Conflict(
                    f"{path} is there, and this migration has not made it",
                    fix="remove it or move it away, if nothing needs it; then start the migration again",
                ) from None
            try:
                os.write(fd, mark.encode())
                os.fsync(fd)
            except OSError:
                os.unlink(path.name, dir_fd=parent)
                raise
            finally:
                os.close(fd)

    def is_reserved(self, wanted: str, mark: str) -> bool:
        """Is there a file that holds nothing but `mark`?"""
        path = self.inside(wanted)
        with self.parent(path) as parent:
            return parent is not None and _holds(parent, path.name, mark)

    def empty(self, path: Path, identity: str) -> None:
        """Cut this file down to nothing. Raises Conflict where another one is there by now, OSError, Permanent."""
        with self.parent(path) as parent:
            if parent is None:
                raise Permanent(f"{path.parent} is not there")
            try:
                with opened(path.name, os.O_WRONLY, links=False, folder=parent) as fd:
                    if same_file(identity, identity_by(fd)):
                        os.ftruncate(fd, 0)
                        return
            except (FileNotFoundError, WrongKind, IsADirectoryError):
                pass
        raise Conflict(f"{path} is not the file any more that this migration has made")

    def remove_file(self, wanted: str) -> None:
        """Idempotent. Raises Permanent for what is not a regular file, or cannot be removed."""
        path = self.inside(wanted)
        with self.parent(path) as parent:
            if parent is None:
                return
            try:
                mode = os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode
                if not stat.S_ISREG(mode):
                    raise Permanent(f"{path} is not a regular file any more: left alone")
                os.unlink(path.name, dir_fd=parent)
            except FileNotFoundError:
                return
            except OSError as error:
                raise Permanent(f"cannot remove {path}: {error.strerror}") from error

    def remove_directory(self, wanted: str) -> None:
        """Where it is empty. Raises Permanent for a path outside."""
        path = self.inside(wanted)
        with self.parent(path) as parent:
            if parent is None:
                return
            # Missing is not an error. A directory that is not empty is in use by something else.
            with contextlib.suppress(FileNotFoundError, OSError):
                os.rmdir(path.name, dir_fd=parent)

    @contextlib.contextmanager
    def parent(self, path: Path) -> Iterator[int | None]:
        """The parent directory, opened step by step without following links; None where it is missing.

        Raises Permanent where a link or a file is in the way.
        """
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            fix = "make it available again, as it was"
            raise Permanent(f"the instances directory {self.root}: {error.strerror}", fix=fix) from error
        try:
            for part in path.parent.relative_to(self.root).parts:
                try:
                    inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                except FileNotFoundError:
                    yield None
                    return
                except OSError as error:
                    raise Permanent(f"{part} on the way to {path}: {error.strerror}") from error
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def free_bytes(self) -> int:
        """What this process may still write into the instances directory. Raises OSError if it is missing."""
        numbers = os.statvfs(self.root)
        return numbers.f_bavail * numbers.f_frsize


def _holds(parent: int, name: str, mark: str) -> bool:
    """Nothing but that."""
    wanted = mark.encode()
    try:
        with opened(name, links=False, folder=parent) as fd:
            return os.pread(fd, len(wanted) + 1, 0) == wanted
    except (FileNotFoundError, WrongKind, IsADirectoryError):
        return False
