"""Which disks travel: those that only their own host sees, by what the other host SEES.

Used by P2 and by the checks, so that both come to the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sterna.domain.claims import Proof, Sight, compare
from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, Refusal
from sterna.ports.storage import Storage

Ask = Callable[[str, str], Awaitable[Sight]]
"""What the destination sees of this token beside this path."""
_FLATTEN = "put all of its files on storage both hosts see, under the same names, or flatten it (virsh blockpull)"


async def decide_local(storage: Storage, ask: Ask, disks: tuple[Disk, ...], token: str) -> tuple[Disk, ...]:
    """Each disk with `local` decided, and every file it stands on compared; what is in the way is in `against`.

    A token file is put for a moment beside what each path leads to. A destination that sees it shares the storage.
    Raises Unreachable or Unknown if the destination cannot be asked.
    """
    decided = []
    for disk in disks:
        if disk.kind is DiskKind.FILE and disk.path is not None:
            decided.append(await _decide(storage, ask, await storage.examine(disk), disk.path, token))
        else:
            decided.append(disk.model_copy(update={"local": False}))
    return tuple(decided)


async def _decide(storage: Storage, ask: Ask, disk: Disk, path: str, token: str) -> Disk:
    proof = await _prove(storage, ask, path, token)
    local, against, base = proof is Proof.APART, list(disk.against), None
    if proof is Proof.OTHER:
        message = f"disk {disk.target}: both hosts see the folder of {path}, but another file under that name"
        fix = "see what is mounted over it, or where a symbolic link leads"
        against.append(Refusal(code="disk-not-the-same", message=message, fix=fix))
    below = tuple(dict.fromkeys(p for p in (disk.backing_path, *disk.chain) if p))
    problems = [p for p in [await _below(storage, ask, p, token) for p in below] if p]
    if local and disk.data_file:
        message = (
            f"disk {disk.target}: {path} is only on this host, with its data in another file, {disk.data_file}"
        )
        fix = "convert it to an image with its data inside (qemu-img convert)"
        against.append(Refusal(code="disk-data-file", message=message, fix=fix))
    elif local and below:
        base = not problems  # the destination says what speaks against it
    elif problems:
        message = f"disk {disk.target}: {path} stands on {', '.join(problems)}"
        against.append(Refusal(code="disk-backing-file", message=message, fix=_FLATTEN))
    found = {"local": local, "backing_shared": base, "identity": await storage.identity(path)}
    return disk.model_copy(update=found | {"against": tuple(against)})


async def _below(storage: Storage, ask: Ask, path: str, token: str) -> str:
    """What is wrong with a file that an image stands on, in words: '' where both hosts see the same one."""
    if not path.startswith("/"):
        return f"{path}, which is not a file: whether both hosts reach it is not known"
    try:
        proof = await _prove(storage, ask, path, token)
    except Permanent as error:
        return f"{path}, of which nothing can be proven ({error.message})"
    return {
        Proof.SAME: "",
        Proof.APART: f"{path}, which is only on this host",
        Proof.MISSING: f"{path}, which the destination does not have",
        Proof.OTHER: f"{path}, which is another file on the destination",
    }[proof]


async def _prove(storage: Storage, ask: Ask, path: str, token: str) -> Proof:
    try:
        await storage.leave_token(path, token)
        return compare(await storage.sight(path, token), await ask(path, token))
    finally:
        await storage.drop_token(path, token)
