"""The Storage port on a simulated host: instance directories, empty targets for copies, proof of sharing."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256

from sterna.domain.claims import Claim, Sight, misplaced
from sterna.domain.errors import Conflict, Permanent, StorageSilent
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind, FileOwner, Refusal
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import SimFile
from sterna.sim.world.world import World

LOOK_S = 10.0
"""After this a path on a silent file system is given up."""


class SimStorage:
    """One simulated host's files (ports.storage.Storage)."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]
        self._seen: set[str] = set()
        """Paths of claims that have answered once."""

    async def check_targets(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Room and permission; every reason at once."""
        here = await self._called(self._host.instances_dir)
        found = [refusal for disk in disks for refusal in self._against(disk)]
        needed = sum(_needed(disk) for disk in disks)
        free = here.folder(here.instances_dir).free_bytes
        if free < needed:
            message = f"the copies of local disks need {needed} bytes in {here.instances_dir}, {free} are free"
            fix = "free space there, or choose another host"
            found.append(Refusal(code="disk-space-short", message=message, fix=fix))
        return found

    async def check_sources(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """Those outside the instances directory of this host."""
        await self._called(self._host.instances_dir)
        found = []
        for disk in disks:
            try:
                self._inside(disk.path or "")
            except Permanent as error:
                found.append(
                    misplaced(disk, f"{error.message}: it could not be removed after the migration", error.fix)
                )
        return found

    async def plan_targets(self, vm_uuid: str, disks: tuple[Disk, ...]) -> Created:
        """What P8 would have to make. Raises Conflict if a disk's file exists, Permanent outside."""
        here = await self._called(self._host.instances_dir)
        wanted = {posixpath.join(here.instances_dir, vm_uuid)}
        files = []
        for disk in disks:
            path = self._inside(disk.path or "")
            if here.file(path) is not None:
                raise Conflict(f"disk {disk.target}: {path} already exists", fix="remove it if nothing needs it")
            files.append(path)
            wanted |= set(self._parents(path))
        missing = sorted((d for d in wanted if not here.directory_exists(d)), key=lambda d: (len(d), d))
        return Created(directories=tuple(missing), files=tuple(files))

    async def reserve_targets(self, created: Created, mark: str) -> dict[str, str]:
        """P8: make what `created` lists, each file with the mark in it. Raises Conflict, Permanent."""
        here = await self._called(self._host.instances_dir)
        for directory in sorted(created.directories, key=len):
            self._world.make_directory(here.name, self._inside(directory))
        for path in map(self._inside, created.files):
            found = here.file(path)
            if found is not None and found.content != mark:
                raise Conflict(f"{path} is there, and this migration has not made it")
            if not here.parent_exists(path):
                raise Permanent(f"cannot make {path}: No such file or directory")
            if here.folder(path).free_bytes <= 0:
                raise Permanent(f"cannot make {path}: No space left on device")
            if found is None:
                self._world.put_file(here.name, path, SimFile(len(mark), content=mark))
        return await self.reserved(created, mark)

    async def reserved(self, created: Created, mark: str) -> dict[str, str]:
        """Those that hold it."""
        here = await self._called(self._host.instances_dir)
        held = [path for path in created.files if (file := here.file(path)) and file.content == mark]
        return {path: self._identity(path) for path in held}

    async def create_targets(self, disks: tuple[Disk, ...], made: Mapping[str, str]) -> None:
        """P8: the disks; what an earlier attempt made is left."""
        here = await self._called(self._host.instances_dir)
        for disk in disks:
            if disk.path is None or disk.path not in made:
                raise Conflict(f"disk {disk.target}: {disk.path} is not planned to be made here")
            path, size = self._inside(disk.path), disk.capacity_bytes or 0
            found = here.file(path)
            if found is None or self._identity(path) != made[path]:
                raise Conflict(f"{path} is not the file any more that this migration has made")
            if found.size_bytes == size:
                continue
            if disk.backing_path and here.file(disk.backing_path) is None:
                raise Permanent(f"cannot make {path}: Could not open '{disk.backing_path}'")
            self._world.put_file(here.name, path, SimFile(size, disk.format, content="empty"))

    async def remove(self, created: Created) -> None:
        """R7, F10: these files, then the directories that are empty. Raises Permanent outside."""
        here = await self._called(self._host.instances_dir, *created.files, *created.directories)
        for path in created.files:
            if here.folder(path).read_only:
                raise Permanent(f"cannot remove {path}: Read-only file system")
            self._world.remove_file(here.name, self._inside(path))
        for path in sorted(created.directories, key=len, reverse=True):
            may = not here.folder(path).read_only and here.directory_exists(self._inside(path))
            if may and not any(self._entries(path)):
                self._world.remove_directory(here.name, path)

    async def directories_of(self, vm_uuid: str) -> tuple[str, ...]:
        """The VM's instance directory here, where there is one."""
        here = await self._called(self._host.instances_dir)
        path = posixpath.join(here.instances_dir, vm_uuid)
        return (path,) if here.directory_exists(path) else ()

    async def is_empty(self, directory: str) -> bool:
        """Is it there, and nothing in it?"""
        here = await self._called(directory)
        return here.directory_exists(self._inside(directory)) and not any(self._entries(directory))

    async def leave_token(self, path: str, token: str) -> None:
        """A small file beside `path`. Raises Permanent where that cannot be written."""
        here = await self._called(path)
        place = _token_place(path, token)
        if here.folder(path).read_only:
            raise Permanent(f"cannot write beside {path}: Read-only file system")
        if not here.parent_exists(place):
            raise Permanent(f"cannot write beside {path}: No such file or directory")
        self._world.put_file(here.name, place, SimFile(len(token), content=token))

    async def sees_token(self, path: str, token: str) -> bool:
        """Does this host see it?"""
        return (await self.sight(path, token)).seen

    @asynccontextmanager
    async def held(self, path: str) -> AsyncIterator[int | None]:
        """A lock on the file, where it can be read."""
        here = await self._called(path)
        if here.file(path) is None:
            yield None
            return
        place = next(self._world.lock_places)
        locks = here.folder(path).locks
        locks[place] = path
        try:
            yield place
        finally:
            del locks[place]

    async def digest(self, path: str) -> str | None:
        """Of the content's token."""
        file = (await self._called(path)).file(path)
        return sha256(f"{file.size_bytes} {file.content}".encode()).hexdigest() if file is not None else None

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """The content's token stands for the bytes."""
        file = (await self._called(path)).file(path)
        if file is None:
            raise Permanent(f"cannot read {path}: No such file or directory")
        return file.content.encode()[offset : offset + length]

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """A piece of it."""
        here = await self._called(path)
        file = here.file(self._inside(path))
        if file is None:
            raise Permanent(f"cannot write {path}: No such file or directory")
        file.content = (file.content.encode()[:offset] + data).decode()

    async def sight(self, path: str, token: str, place: int | None = None) -> Sight:
        """The token, the file beside it, and a lock on that."""
        here = await self._called(path)
        seen = self._has_token(path, token)
        file = here.file(path)
        born = here.folder(path).births.get(path) if file is not None else None
        size = file.size_bytes if file is not None else None
        held = place is not None and here.folder(path).locks.get(place) == path
        found = Sight(seen=seen, token_inode=0 if seen else None, file_inode=born, size=size, held=held)
        folder = here.folder(path)
        of_others = {"mount": folder.mount, "exported": folder.path if folder.exported else ""}
        return found.model_copy(update={"same_device": file is not None or None} | of_others)

    async def named_by(
        self, name: str, token: str, claims: tuple[Claim, ...], *, perhaps: bool = False
    ) -> tuple[str, ...]:
        """Who names a file called `name` beside that token."""
        await self._called()
        answer, silent = await self._looked_at(claims)
        named = [c for c in answer if posixpath.basename(c.path) == name and self._has_token(c.path, token)]
        may = [c for c in silent if c.path not in self._seen or posixpath.basename(c.path) == name]
        return tuple(dict.fromkeys([c.owner for c in named] + [_perhaps(c) for c in may if perhaps]))

    async def examine(self, disk: Disk) -> Disk:
        """As the definition has it: simulated files have no headers."""
        await self._called(disk.path or "/")
        return disk

    async def data_bytes(self, disk: Disk) -> int | None:
        """As the file says."""
        file = (await self._called(disk.path or "/")).file(disk.path or "/")
        return file.data_bytes if file is not None else None

    async def identity(self, path: str) -> str | None:
        """How often that path was made again."""
        here = await self._called(path)
        return self._identity(path) if here.file(path) is not None else None

    async def used_by(
        self, files: tuple[str, ...], claims: tuple[Claim, ...], *, locks: bool = False, perhaps: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """By path; with `locks` also those that a QEMU has open."""
        here, found = await self._called(*files), {}
        answer, silent = await self._looked_at(claims)
        may = [_perhaps(claim) for claim in silent if perhaps and claim.path not in self._seen]
        for path in files:
            owners = [claim.owner for claim in answer if claim.path == path] + may
            if locks and any(host == here.name for host, _ in here.folder(path).users.get(path, ())):
                owners.append("a process of this host that holds a lock on it")
            if owners:
                found[path] = tuple(dict.fromkeys(owners))
        return found

    def _identity(self, path: str) -> str:
        return f"1:{self._host.folder(path).births.get(path, 0)}"

    def _has_token(self, path: str, token: str) -> bool:
        file = self._host.file(_token_place(path, token))
        return file is not None and file.content == token

    async def drop_token(self, path: str, token: str) -> None:
        """Remove it; missing is not an error."""
        here = await self._called(path)
        place = _token_place(path, token)
        if here.file(place) is not None and here.folder(path).read_only:
            raise Permanent(f"cannot remove the token beside {path}: Read-only file system")
        self._world.remove_file(here.name, place)

    async def tokens(self, path: str) -> tuple[str, ...]:
        """The tokens beside `path`."""
        here = await self._called(path)
        begins = _token_place(path, "")
        return tuple(sorted(p.removeprefix(begins) for p in here.folder(path).files if p.startswith(begins)))

    async def sweep_tokens(self, path: str, prefix: str, keep: frozenset[str]) -> None:
        """Remove tokens of this prefix."""
        here = await self._called(path)
        begins, kept = _token_place(path, prefix), {_token_place(path, token) for token in keep}
        for found in [p for p in here.folder(path).files if p.startswith(begins) and p not in kept]:
            self._world.remove_file(here.name, found)

    async def owner_of(self, path: str) -> FileOwner | None:
        """Everybody's files are root's here."""
        here = await self._called(path)
        return FileOwner(user="root", uid=0, group="root", gid=0, mode=0o600) if here.file(path) else None

    async def readable(self, path: str) -> bool:
        """Is the file here, and may it be opened?"""
        here = await self._called(path)
        return here.file(path) is not None and path not in here.denied

    async def _called(self, *paths: str) -> SimHost:
        """Raises StorageSilent."""
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        for path in paths:
            if self._is_silent(path):
                await self._world.clock.sleep(LOOK_S)
                fix = "check that the storage it is on can be reached"
                raise StorageSilent(f"{path}: the file system does not answer", fix=fix)
        return self._host

    def _is_silent(self, path: str) -> bool:
        return any(path == point or path.startswith(f"{point}/") for point in self._host.silent)

    async def _looked_at(self, claims: tuple[Claim, ...]) -> tuple[list[Claim], list[Claim]]:
        """Those that answer, and those that do not."""
        silent = [claim for claim in claims if self._is_silent(claim.path)]
        if silent:
            await self._world.clock.sleep(LOOK_S)
        answer = [claim for claim in claims if claim not in silent]
        self._seen |= {claim.path for claim in answer}
        return answer, silent

    def _against(self, disk: Disk) -> Iterator[Refusal]:
        label = f"disk {disk.target}"
        if disk.kind is not DiskKind.FILE or disk.path is None:
            fix = "use a file, or a volume both hosts can reach"
            yield Refusal(code="disk-not-a-file", message=f"{label} is local and not a file", fix=fix)
            return
        if disk.backing_path and not (disk.backing_shared and self._host.file(disk.backing_path)):
            message = f"{label} is local and has a backing file, {disk.backing_path}, that is not seen here"
            fix = "flatten it first (virsh blockpull), or put both on shared storage"
            yield Refusal(code="disk-backing-file", message=message, fix=fix)
        try:
            path = self._inside(disk.path)
        except Permanent as error:
            yield misplaced(disk, error.message, error.fix)
            return
        if self._host.file(path) is not None:
            fix = f"remove {path} on the destination, if nothing needs it"
            yield Refusal(code="disk-file-exists", message=f"{label}: {path} already exists", fix=fix)

    def _inside(self, path: str) -> str:
        root = self._host.instances_dir
        if posixpath.normpath(path or "/") != path or not path.startswith(root + "/"):
            raise Permanent(f"{path} is outside {root}", fix=f"local disks must lie below {root}")
        return path

    def _parents(self, path: str) -> Iterator[str]:
        parent = posixpath.dirname(path)
        while parent != self._host.instances_dir:
            yield parent
            parent = posixpath.dirname(parent)

    def _entries(self, directory: str) -> Iterator[str]:
        folder = self._host.folder(directory)
        for path in (*folder.files, *folder.directories):
            if path.startswith(directory + "/"):
                yield path


def _needed(disk: Disk) -> int:
    allocated = disk.allocation_bytes if disk.allocation_bytes is not None else disk.capacity_bytes or 0
    return max(allocated, disk.data_bytes or 0)


def _perhaps(claim: Claim) -> str:
    return f"perhaps {claim.owner}: {claim.path} does not answer"


def _token_place(path: str, token: str) -> str:
    return posixpath.join(posixpath.dirname(path), f".sterna-{token}")
