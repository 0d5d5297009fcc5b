"""Files of one host: instance directories, local disks, and the proof whether a folder is shared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sterna.domain.claims import Claim, Sight
from sterna.domain.files import Created
from sterna.domain.model import Disk, FileOwner, Refusal


class TokenSweeper(Protocol):
    """Takes away what proofs of sharing left."""

    async def sweep_tokens(self, path: str, prefix: str, keep: frozenset[str]) -> None:
        """Remove every token beside `path` whose name begins with `prefix`, but those of `keep`."""


class Storage(TokenSweeper, Protocol):
    """One host's file storage. Paths are absolute. Every method may be repeated.

    Each raises StorageSilent where the file system of a path that it is asked about does not answer: within seconds
    where it only looks.
    """

    async def check_targets(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Room and permission to hold copies of these local disks: file taken, too little space."""

    async def check_sources(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Which of these local disks, that are here, F10 could not remove once the VM has moved away."""

    async def plan_targets(self, vm_uuid: str, disks: tuple[Disk, ...]) -> Created:
        """Which directories and files P8 would have to make: those that do not exist yet.

        Raises Conflict if a disk's file already exists.
        """

    async def reserve_targets(self, created: Created, mark: str) -> dict[str, str]:
        """P8: make these directories, and each file, with nothing but `mark` in it: path -> its identity.

        A file that holds the mark was reserved before. Raises Conflict where there is any other file.
        """

    async def reserved(self, created: Created, mark: str) -> dict[str, str]:
        """Those of the files that hold `mark`: path -> identity."""

    async def create_targets(self, disks: tuple[Disk, ...], made: Mapping[str, str]) -> None:
        """P8: the disks, empty, same virtual size and format as the source's, thin. `made`: path -> the identity of
        the file that was reserved.

        Raises Conflict where another file is there by now.
        """

    async def remove(self, created: Created) -> None:
        """R7, F10: remove these files, then the directories if empty. Paths outside the instances directory
        raise Permanent. Missing ones are success."""

    async def directories_of(self, vm_uuid: str) -> tuple[str, ...]:
        """The VM's instance directory here, where there is one: removed at F10 once it is empty."""

    async def is_empty(self, directory: str) -> bool:
        """Is it there, and nothing in it? Raises Permanent outside the instances directory."""

    async def leave_token(self, path: str, token: str) -> None:
        """Put a small file with `token` beside what `path` leads to (the proof of sharing)."""

    async def sees_token(self, path: str, token: str) -> bool:
        """Does THIS host see that token beside `path`?"""

    async def sight(self, path: str, token: str, place: int | None = None) -> Sight:
        """What this host sees of the token, of the file that `path` leads to, and whether a lock is held on that
        `place` of it."""

    def held(self, path: str) -> AbstractAsyncContextManager[int | None]:
        """Hold a lock on a random place of the file, which a host that sees the same file sees too: the proof where
        nothing can be written. The place; None where it cannot be locked."""

    async def digest(self, path: str) -> str | None:
        """Two files with the same one have the same content. None where it cannot be read."""

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """A piece of a medium; b'' at its end. Raises Permanent."""

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """A piece into a file that P8 made; the first one empties it. Raises Permanent."""

    async def named_by(
        self, name: str, token: str, claims: tuple[Claim, ...], *, perhaps: bool = False
    ) -> tuple[str, ...]:
        """Who of these names a file called `name` beside that token, under whatever path; in words. A claim that
        does not answer holds up nothing: with `perhaps`, it counts where it may lead there."""

    async def drop_token(self, path: str, token: str) -> None:
        """Remove it; missing is not an error."""

    async def tokens(self, path: str) -> tuple[str, ...]:
        """The tokens beside `path`, of any host. A missing folder holds none."""

    async def owner_of(self, path: str) -> FileOwner | None:
        """Who a disk's file belongs to on this host, for its copy; None where it cannot be seen."""

    async def readable(self, path: str) -> bool:
        """Does this host see the file and may it be opened for reading and writing?"""

    async def examine(self, disk: Disk) -> Disk:
        """With all it stands on (`chain`, `data_file`) and the snapshots inside it, as the images themselves say;
        what cannot be read is in `against`."""

    async def data_bytes(self, disk: Disk) -> int | None:
        """Bytes that a copy of this local disk would hold: its data decompressed, without holes and without what it
        stands on. None where that is not known."""

    async def identity(self, path: str) -> str | None:
        """Distinguishes this file from a later one of the same name; None where there is no file."""

    async def used_by(
        self, files: tuple[str, ...], claims: tuple[Claim, ...], *, locks: bool = False, perhaps: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """Those of `files` that one of `claims` needs, under whatever name and anywhere in a chain: by whom, in
        words. With `locks`, also those on which a process of this host holds a lock.

        A claim that does not answer (a dead file system) holds up nothing. It counts where it lies on the file's
        own file system; with `perhaps`, as right before a removal, wherever it may lead there as far as is known.
        """
