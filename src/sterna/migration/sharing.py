"""Which disks travel: those that only their own host sees, by what the other host SEES.

Used by P2 and by the checks, so that both come to the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind
from sterna.ports.storage import Storage

Ask = Callable[[str, str], Awaitable[bool]]
"""Does the destination see this token beside this path?"""


async def decide_local(storage: Storage, ask: Ask, disks: tuple[Disk, ...], token: str) -> tuple[Disk, ...]:
    """Each disk with `local` decided by what the destination SEES, not by what its path looks like.

    A token file is put beside each disk's file for a moment; a destination that sees it shares the storage.
    Raises Unreachable or Unknown if the destination cannot be asked.
    """
    decided = []
    for disk in disks:
        local, base, identity = False, None, None
        if disk.kind is DiskKind.FILE and disk.path is not None:
            local = not await _seen(storage, ask, disk.path, token)
            identity = await storage.identity(disk.path)
        if local and len(disk.files) > 1:
            base = await _base_seen(storage, ask, disk.files[1], token)
        decided.append(disk.model_copy(update={"local": local, "backing_shared": base, "identity": identity}))
    return tuple(decided)


async def _seen(storage: Storage, ask: Ask, path: str, token: str) -> bool:
    try:
        await storage.leave_token(path, token)
        return await ask(path, token)
    finally:
        await storage.drop_token(path, token)


async def _base_seen(storage: Storage, ask: Ask, path: str, token: str) -> bool:
    """False, too, where nothing can be written beside a base: nobody knows then."""
    try:
        return await _seen(storage, ask, path, token)
    except Permanent:
        return False
