"""Files of one host (protocol P8, R7, F10): instance directories, empty targets for local disks, proof of sharing.

Nothing outside `instances_dir` is ever created or removed but the small proof-of-sharing tokens, and no
symbolic link is followed on the way to what is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from sterna.adapters.files import file_lock, media, owners, sharing_tokens, usage
from sterna.adapters.files.instances_dir import InstancesDir
from sterna.adapters.files.reach import Claimed
from sterna.adapters.files.targets import FORMATS, against, against_backing, bases, room, unremovable
from sterna.adapters.files.usage import Place
from sterna.domain.claims import Claim, Sight
from sterna.domain.errors import Conflict, Permanent, Refused, Temporary
from sterna.domain.files import Created, same_file
from sterna.domain.model import Disk, FileOwner, Refusal
from sterna.kit.command import run
from sterna.kit.mounts import ANSWER_S, LOOK_S, look_at, mount_of, on_disk, unless_failing
from sterna.kit.opening import opened
from sterna.kit.threads import Worker

_QEMU_IMG_S = 30.0
"""Making a thin image writes a header; only a storage in trouble needs seconds."""

_MEASURE_S = 15.0
"""It reads an image's tables: some MiB for each TiB."""
_DIGEST_S = 40.0
"""A large medium is read at a gigabit's pace; it goes on in its thread, and the next check has what it found."""
_PIECE_S = 30.0
"""Of a medium; it is synced. Its caller waits for 60 s."""
_DROP_S = 5.0
"""A token that stays is swept later (agent/tokens.py)."""
_GIVE_UP_S = 5.0
"""Releasing a lock takes one answer of the server. No caller needs to wait for it."""

log = structlog.get_logger(__name__)

T = TypeVar("T")


class FileStorage:
    """`ports.storage.Storage` on one instances directory."""

    def __init__(self, instances_dir: str | os.PathLike[str], *, qemu_img: str = "qemu-img") -> None:
        self._folder = InstancesDir(instances_dir)
        self._qemu_img = qemu_img
        self._claimed = Claimed()

    async def check_targets(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Room and permission to hold copies of these local disks; every reason at once."""

        def check() -> list[Refusal]:
            refusals = [refusal for disk in disks for refusal in against(self._folder, disk)]
            return refusals + room(self._folder, disks) if disks else refusals

        return await _look(check, str(self._folder.root), *bases(disks))

    async def check_sources(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Which of these local disks F10 could not remove: those outside the instances directory of this host."""

        def check() -> list[Refusal]:
            return [refusal for disk in disks for refusal in unremovable(self._folder, disk)]

        return await _look(check, str(self._folder.root))

    async def plan_targets(self, vm_uuid: str, disks: tuple[Disk, ...]) -> Created:
        """Which directories and files P8 would have to make; the VM's own directory is `instances_dir/UUID`.

        Raises Conflict if a disk's file already exists, Permanent for a path outside the instances directory.
        """
        return await _look(lambda: self._folder.plan(vm_uuid, disks), str(self._folder.root))

    async def reserve_targets(self, created: Created, mark: str) -> dict[str, str]:
        """P8: make what `created` lists, each file with nothing but `mark` in it: path -> its identity.

        Raises Conflict where a file is there that does not hold the mark, Permanent.
        """

        def make() -> None:
            for directory in sorted(created.directories, key=len):
                self._folder.make_directory(directory)

        await _change(make, str(self._folder.root))
        for path in created.files:
            await _in_words(partial(self._folder.reserve, path, mark), "cannot make", path)
        return await self.reserved(created, mark)

    async def reserved(self, created: Created, mark: str) -> dict[str, str]:
        """Those of the files that hold nothing but `mark`: path -> identity."""

        def look() -> dict[str, str | None]:
            held = [path for path in created.files if self._folder.is_reserved(path, mark)]
            return {path: usage.identity_of(path) for path in held}

        found = await _look(look, str(self._folder.root))
        return {path: identity for path, identity in found.items() if identity}

    async def create_targets(self, disks: tuple[Disk, ...], made: Mapping[str, str]) -> None:
        """P8: the disks. A file of an earlier, interrupted attempt is made again unless whole.

        Raises Conflict if a disk's file is not one of `made`, Permanent if qemu-img refuses.
        """
        for disk in disks:
            if disk.path is None or disk.path not in made:
                raise Conflict(f"disk {disk.target}: {disk.path} is not planned to be made here")
            await self._create_disk(disk, disk.path, made[disk.path])

    async def remove(self, created: Created) -> None:
        """R7, F10: remove these files, then the directories that are empty, deepest first.

        Raises Permanent for a path outside the instances directory, or one that a symbolic link leads to.
        """

        def remove() -> None:
            for path in created.files:
                self._folder.remove_file(path)
            for path in sorted(created.directories, key=len, reverse=True):
                self._folder.remove_directory(path)

        root = str(self._folder.root)
        await (_change(remove, root) if created.files else _look(remove, root))

    async def directories_of(self, vm_uuid: str) -> tuple[str, ...]:
        """`instances_dir/UUID`, if there is one."""

        def look() -> tuple[str, ...]:
            path = self._folder.inside(str(self._folder.root / vm_uuid))
            return (str(path),) if path.is_dir() else ()

        return await _look(look, str(self._folder.root))

    async def is_empty(self, directory: str) -> bool:
        """A link to a directory is none."""

        def look() -> bool:
            path = self._folder.inside(directory)
            return path.is_dir() and not path.is_symlink() and not any(path.iterdir())

        return await _look(look, directory)

    async def leave_token(self, path: str, token: str) -> None:
        """Put `token` into a hidden file beside `path`. Raises Permanent where that cannot be written."""
        await _look_in_words(lambda: sharing_tokens.leave(path, token), "cannot write beside", path, LOOK_S)

    async def sees_token(self, path: str, token: str) -> bool:
        """Does THIS host see that token beside `path`?"""
        return (await self.sight(path, token)).seen

    async def sight(self, path: str, token: str, place: int | None = None) -> Sight:
        """What this host sees of the token, of the file beside it, and of the other host's lock on it."""
        return await _look(lambda: sharing_tokens.sight(path, token, place), path)

    @contextlib.asynccontextmanager
    async def held(self, path: str) -> AsyncIterator[int | None]:
        """Hold a lock on a random place of the file: the place; None where it cannot be locked.

        Over NFS, giving it up asks the server. One that does not answer is left to the thread, which is there
        before the lock is taken: neither who waits nor the garbage collector ever gives it up in the event loop.
        """
        lock, giver = file_lock.Lock(path), Worker("sterna-unlock")
        try:
            yield await _look(lock.take, path)
        finally:
            over, loop = asyncio.Event(), asyncio.get_running_loop()
            giver.post(lambda: _give_up(lock, lambda: loop.call_soon_threadsafe(over.set)))
            giver.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GIVE_UP_S):
                    await over.wait()

    async def digest(self, path: str) -> str | None:
        """A digest of the file's content; None where it cannot be read."""
        with _words("cannot read", path):
            return await on_disk(lambda: media.digest(path), path, limit_s=_DIGEST_S)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """A piece of a medium; b'' at its end. Raises Permanent."""
        return await _in_words(lambda: media.read(path, offset, length), "cannot read", path, _PIECE_S)

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """A piece into a file that P8 made. Raises Permanent, also outside the instances directory."""

        def write() -> None:
            inside = self._folder.inside(path)
            with self._folder.parent(inside) as parent:
                if parent is None:
                    raise Permanent(f"{inside.parent} is not there")
                media.write(parent, inside.name, offset, data)

        await _in_words(write, "cannot write", path, _PIECE_S)

    async def named_by(
        self, name: str, token: str, claims: tuple[Claim, ...], *, perhaps: bool = False
    ) -> tuple[str, ...]:
        """Who names a file called `name` that lies beside that token, under whatever path. `perhaps`: also whose
        path does not answer, and may lead there."""
        reached = await self._claimed.reach(claims)
        called = {place.real for one in reached for place in one.places if place.name == name}
        beside = await _look(lambda: sharing_tokens.beside(called, token), *called)
        return usage.named_by(name, beside, reached, perhaps=perhaps)

    async def drop_token(self, path: str, token: str) -> None:
        """Remove it; missing is not an error."""
        await _look_in_words(
            lambda: sharing_tokens.drop(path, token), "cannot remove the token beside", path, _DROP_S
        )

    async def tokens(self, path: str) -> tuple[str, ...]:
        """The tokens beside `path`, by their names. A missing folder holds none."""
        return await _look_in_words(
            lambda: sharing_tokens.tokens(path), "cannot look for tokens beside", path, LOOK_S
        )

    async def sweep_tokens(self, path: str, prefix: str, keep: frozenset[str]) -> None:
        """Remove tokens of this prefix beside `path`, but those of `keep`. A missing folder holds none."""
        await _look_in_words(
            lambda: sharing_tokens.sweep(path, prefix, keep), "cannot sweep tokens beside", path, LOOK_S
        )

    async def examine(self, disk: Disk) -> Disk:
        """With everything it stands on and the snapshots inside it, as the images' own headers have it."""
        return await _look(lambda: usage.examine(disk), disk.path or "/", *disk.chain)

    async def data_bytes(self, disk: Disk) -> int | None:
        """What `qemu-img measure` says. The image may be open in a running guest's QEMU: it is a close estimate."""
        if disk.format not in FORMATS or not disk.path or disk.data_file:
            return None
        image: dict[str, object] = {"driver": disk.format, "file": {"driver": "file", "filename": disk.path}}
        if disk.format == "qcow2":
            image["backing"] = None
        argv = [self._qemu_img, "measure", "-U", "--output=json", "-O", "qcow2", f"json:{json.dumps(image)}"]
        try:
            done = await run(argv, limit_s=_MEASURE_S)
        except Temporary:
            return None  # it is very large, or its storage is slow
        return int(json.loads(done.out)["required"]) if done.code == 0 else None

    async def identity(self, path: str) -> str | None:
        """Distinguishes this file from a later one of the same name; None where there is no file."""
        return await _look(lambda: usage.identity_of(path), path)

    async def used_by(
        self, files: tuple[str, ...], claims: tuple[Claim, ...], *, locks: bool = False, perhaps: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """Those of `files` that are needed elsewhere: by whom, in words. `locks`: processes of this host as well,
        and images that cannot be read. `perhaps`: also whose path does not answer, and may lead there."""

        def look() -> tuple[list[Place], list[str]]:
            return [usage.place_of(file) for file in files], usage.locked(files) if locks else []

        places, locked = await _look(look, *files)
        reached = await self._claimed.reach(claims)
        found = {}
        for place in places:
            users = usage.users_of(place, mount_of(place.real), reached, perhaps=perhaps)
            users += (usage.LOCKED,) if place.path in locked else ()
            users += usage.unreadable(reached) if locks else ()
            if users:
                found[place.path] = users
        return found

    async def owner_of(self, path: str) -> FileOwner | None:
        """Owner, group and mode of a file; None where it cannot be seen."""
        return await owners.read(path)

    async def readable(self, path: str) -> bool:
        """Does this host see the file, and may it be opened for reading and writing?"""

        def look() -> bool:
            try:
                with opened(path, os.O_RDWR):
                    return True
            except OSError:
                return False

        return await _look(look, path)

    async def _create_disk(self, disk: Disk, wanted: str, identity: str) -> None:
        path = await _look(lambda: self._folder.inside(wanted), wanted)
        if disk.format not in FORMATS or disk.capacity_bytes is None:
            raise Permanent(f"disk {disk.target}: cannot make a {disk.format} image of {disk.capacity_bytes} bytes")
        if disk.carried:  # its bytes come from the source's agent
            await _in_words(lambda: self._folder.empty(path, identity), "cannot make", str(path))
            await _give(path, disk.owner)
            return
        if refusals := await _look(lambda: against_backing(disk), *bases((disk,))):
            raise Refused(refusals)  # looked at when the migration was judged: much may have changed since
        found = await self.identity(wanted)
        if found and same_file(identity, found) and await self._is_whole(disk, path):
            await _give(path, disk.owner)
            return
        await _in_words(lambda: self._folder.empty(path, identity), "cannot make", str(path))
        base = ["-b", disk.backing_path, "-F", disk.backing_format or "raw"] if disk.backing_path else []
        # -u: the base has been looked at; qemu-img would open whatever is there
        argv = [self._qemu_img, "create", "-q", "-u", "-f", disk.format, *base, str(path), str(disk.capacity_bytes)]
        done = await run(argv, limit_s=_QEMU_IMG_S)
        if done.code != 0:
            raise Permanent(f"disk {disk.target}: {done.words}")
        await _give(path, disk.owner)

    async def _is_whole(self, disk: Disk, path: Path) -> bool:
        """Is there a finished image of the right kind (ours, from an attempt whose answer was lost)?"""

        def has_content() -> bool:
            return path.is_file() and not path.is_symlink() and path.stat().st_size > 0

        if not await _look(has_content, str(path)):
            return False
        argv = [self._qemu_img, "info", "-U", "--output=json", "-f", disk.format, str(path)]
        done = await run(argv, limit_s=_QEMU_IMG_S)
        return done.code == 0 and int(json.loads(done.out)["virtual-size"]) == disk.capacity_bytes


def _give_up(lock: file_lock.Lock, tell: Callable[[], object]) -> None:
    """In a thread of its own. A failure here is logged, and not raised to the caller."""
    try:
        lock.give_up()
    except OSError as error:
        log.warning("the file system did not release a lock", path=lock.path, error=str(error))
    with contextlib.suppress(RuntimeError):  # the event loop is closed: no caller waits any more
        tell()


async def _give(path: Path, owner: FileOwner | None) -> None:
    """Raises Permanent."""
    with _words("cannot give an owner to", str(path)):
        await owners.give(path, owner)


async def _look(act: Callable[[], T], *paths: str) -> T:
    """As `look_at`, with this module's limit. An OSError becomes StorageSilent or Permanent."""
    with _words("", ", ".join(paths)):
        return await look_at(act, *paths, limit_s=LOOK_S)


async def _change(act: Callable[[], T], path: str) -> T:
    """As `_look`, for what may take long; not where something hangs on that file system already."""
    with _words("", path):
        return await look_at(act, path, limit_s=ANSWER_S)


async def _in_words(act: Callable[[], T], what: str, path: str, limit_s: float | None = None) -> T:
    """As `on_disk`; an OSError becomes StorageSilent, or Permanent with `what` and the path before it."""
    with _words(what, path):
        return await on_disk(act, path, limit_s=limit_s)


async def _look_in_words(act: Callable[[], T], what: str, path: str, limit_s: float) -> T:
    """As `look_at`, and the same."""
    with _words(what, path):
        return await look_at(act, path, limit_s=limit_s)


@contextlib.contextmanager
def _words(what: str, path: str) -> Iterator[None]:
    """Steps that nothing may stop go on without the file at StorageSilent and Permanent, and know no others."""
    try:
        yield
    except OSError as error:
        unless_failing(path, error)
        raise Permanent(f"{what} {path}: {error.strerror}".strip()) from error
