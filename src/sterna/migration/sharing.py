"""Which disks travel: those that only their own host sees, by what the other host SEES.

Used by P2 and by the checks, so that both come to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from sterna.domain import untrusted
from sterna.domain.calls import DigestOf, SeesToken
from sterna.domain.claims import Proof, Sight, compare, compare_unwritten, inside, without_medium
from sterna.domain.errors import BadRequest, Permanent, StorageSilent
from sterna.domain.model import Data, Disk, DiskKind, Refusal, StateFile, Vm
from sterna.domain.references import Reference
from sterna.domain.state_files import WRITTEN
from sterna.kit.aborts import raise_if_aborted, unless_aborted
from sterna.kit.tasks import both
from sterna.migration import media
from sterna.ports.storage import Storage


@contextmanager
def silent_on(host: str) -> Iterator[None]:
    """Inside, that host's files are looked at: an error about one names the host."""
    try:
        yield
    except StorageSilent as error:
        raise error.on(host) from error


class Elsewhere(Protocol):
    """The destination's files. Raises Unreachable or Unknown; StorageSilent, with the host."""

    async def sees(self, path: str, token: str, place: int | None = None) -> Sight:
        """What it sees of this token beside this path, of the file, and of a lock on that place of it."""

    async def digest(self, path: str) -> str | None:
        """Of the content of its file of that name."""


class PeersFiles:
    """`Elsewhere`, by calls to the other host's agent; an abort ends them."""

    def __init__(self, call: Callable[[str, Data], Coroutine[Any, Any, Data]], host: str) -> None:
        self._call, self._host = call, host

    async def sees(self, path: str, token: str, place: int | None = None) -> Sight:
        """See Elsewhere.sees."""
        asked = SeesToken(path=path, token=token, place=place)
        with silent_on(self._host):
            answer = await unless_aborted(self._call(asked.method, asked.to_wire()))
        sight = untrusted.reply(asked, answer).sight
        if sight is None:
            raise BadRequest(f"{self._host} did not answer what it sees of {path}")
        return sight

    async def digest(self, path: str) -> str | None:
        """See Elsewhere.digest."""
        asked = DigestOf(path=path)
        with silent_on(self._host):
            answer = await unless_aborted(self._call(asked.method, asked.to_wire()))
        return untrusted.reply(asked, answer).digest


class Unproven(Permanent):
    """Whether both hosts have one and the same file cannot be known."""

    def __init__(self, path: str, theirs: Sight, why: str) -> None:
        fix = "let the agents write into that folder, or mount it from the same server, with locks, on both hosts"
        super().__init__(f"whether both hosts see the same {path} cannot be proven: {why}", fix=fix)
        self.theirs = theirs


_FLATTEN = "put all of its files on storage both hosts see, under the same names, or flatten it (virsh blockpull)"


async def decide_local(storage: Storage, there: Elsewhere, disks: tuple[Disk, ...], token: str) -> tuple[Disk, ...]:
    """Each disk with `local` decided, and every file it stands on compared; what is in the way is in `against`.

    A token file is put for a moment beside what each path leads to. A destination that sees it shares the storage.
    Where nothing can be written, a lock on the file stands for the token. A read-only medium may also be a file of
    the same content on each host; an optional one that is missing there and cannot be sent stays behind.

    Raises Unreachable or Unknown if the destination cannot be asked, StorageSilent where a file does not answer,
    Cancelled at an abort: it is checked before each file, and while the destination is asked.
    """
    decided = []
    for disk in disks:
        if disk.kind is DiskKind.FILE and disk.path is not None:
            raise_if_aborted()
            decided.append(await _decide(storage, there, await storage.examine(disk), disk.path, token))
        else:
            decided.append(disk.model_copy(update={"local": False}))
    return tuple(decided)


async def prove_written(
    storage: Storage, there: Elsewhere, references: tuple[Reference, ...], token: str
) -> tuple[Reference, ...]:
    """The references; each file that QEMU writes by an argument of its own as `shared` where the other host is
    proven to see it. Raises as `decide_local`."""
    paths = dict.fromkeys(ref.name for ref in references if ref.written and not ref.silent)
    shared = {path: await _is_same(storage, there, path, token) for path in paths}
    return tuple(
        ref.model_copy(update={"shared": shared.get(ref.name, False)}) if ref.written else ref for ref in references
    )


async def prove_state(
    storage: Storage, there: Elsewhere, states: tuple[StateFile, ...], token: str
) -> tuple[StateFile, ...]:
    """The states; NVRAM and firmware that the guest writes as `shared` where the other host is proven to see the
    same file. Raises as `decide_local`."""
    return tuple(
        [
            state.model_copy(update={"shared": await _is_same(storage, there, state.path, token)})
            if state.kind in WRITTEN
            else state
            for state in states
        ]
    )


async def _is_same(storage: Storage, there: Elsewhere, path: str, token: str) -> bool:
    """Is it proven to be? Not where that cannot be known."""
    with suppress(Permanent):
        proof, _ = await _prove(storage, there, path, token)
        return proof is Proof.SAME
    return False


async def against_shared_tpm(storage: Storage, there: Elsewhere, vm: Vm, token: str) -> list[Refusal]:
    """A refusal where both hosts see the state of the VM's TPM. swtpm would have it open on both, and libvirt
    deletes the state that a failed arrival leaves. Raises as `decide_local`."""
    return [
        _tpm_shared(state.path)
        for state in vm.firmware
        if state.kind == "tpm" and await _is_seen(storage, there, inside(state), token)
    ]


async def _is_seen(storage: Storage, there: Elsewhere, paths: tuple[str, ...], token: str) -> bool:
    """By a token beside the first of them where one can be left."""
    for file in paths:
        with suppress(Permanent):
            proof, _ = await _prove(storage, there, file, token)
            return proof is not Proof.APART
    return False


async def _decide(storage: Storage, there: Elsewhere, disk: Disk, path: str, token: str) -> Disk:
    against, base = list(disk.against), None
    try:
        proof, theirs = await _prove(storage, there, path, token)
    except Unproven as error:
        if not disk.medium:
            raise
        proof, theirs = Proof.APART, error.theirs
    if proof is Proof.APART and disk.medium:
        proof = await _compare_media(storage, there, path, theirs)
        if proof is Proof.OTHER:
            against.append(_another_medium(disk))
    elif proof is Proof.OTHER:
        against.append(_another_file(disk))
    if proof is Proof.APART and theirs.file_inode is None and await _may_stay(storage, disk):
        return without_medium(disk)
    local = proof is Proof.APART
    if local and disk.snapshots:
        against.append(_snapshots_inside(disk))
    below = tuple(dict.fromkeys(p for p in (disk.backing_path, *disk.chain) if p))
    problems = [p for p in [await _below(storage, there, p, token) for p in below] if p]
    if local and disk.data_file:
        message = (
            f"disk {disk.target}: {path} is only on this host, with its data in another file, {disk.data_file}"
        )
        fix = "convert it to an image with its data inside (qemu-img convert)"
        against.append(Refusal(code="disk-data-file", message=message, fix=fix))
    elif local and below:
        base = not problems  # the destination reports what is against it
    elif problems:
        message = f"disk {disk.target}: {path} depends on {', '.join(problems)}"
        against.append(Refusal(code="disk-backing-file", message=message, fix=_FLATTEN))
    found = {"local": local, "backing_shared": base, "identity": await storage.identity(path)}
    return disk.model_copy(update=found | {"against": tuple(against)})


_DROPPED = ("cdrom", "floppy")
"""Drives with which libvirt starts an incoming guest although their medium is missing, where the definition permits
it. A disk it refuses (`qemuDomainCheckDiskStartupPolicy`): QEMU expects its state in the stream."""


async def _may_stay(storage: Storage, disk: Disk) -> bool:
    """May it stay behind? Its definition says that the VM can be without it at any start, and it cannot be sent.
    With `startupPolicy='requisite'` the VM could not be started there again."""
    if not (disk.optional and disk.medium and disk.device in _DROPPED):
        return False
    if not media.is_plain(disk) or media.size_of(disk) > media.LARGEST_MEDIUM:
        return True
    return bool(await storage.check_sources((disk,)))


async def _below(storage: Storage, there: Elsewhere, path: str, token: str) -> str:
    """What is wrong with a file that an image stands on, in words: '' where both hosts see the same one."""
    if not path.startswith("/"):
        return f"{path}, which is not a file: whether both hosts reach it is not known"
    try:
        proof, _ = await _prove(storage, there, path, token)
    except Permanent as error:
        return f"{path}, which cannot be compared ({error.message})"
    return {
        Proof.SAME: "",
        Proof.APART: f"{path}, which is only on this host",
        Proof.MISSING: f"{path}, which the destination does not have",
        Proof.OTHER: f"{path}, which is another file on the destination",
    }[proof]


async def _prove(storage: Storage, there: Elsewhere, path: str, token: str) -> tuple[Proof, Sight]:
    """Is it one file, and what the destination sees. Raises Unproven where that cannot be known."""
    raise_if_aborted()
    try:
        try:
            await storage.leave_token(path, token)
        except Permanent as error:
            return await _prove_unwritten(storage, there, path, token, error.message)
        theirs = await there.sees(path, token)
        return compare(await storage.sight(path, token), theirs), theirs
    finally:
        await storage.drop_token(path, token)


async def _prove_unwritten(
    storage: Storage, there: Elsewhere, path: str, token: str, why: str
) -> tuple[Proof, Sight]:
    async with storage.held(path) as place:
        theirs = await there.sees(path, token, place)
        proof = compare_unwritten(await storage.sight(path, token), theirs)
    if proof is None:
        raise Unproven(path, theirs, why)
    return proof, theirs


async def _compare_media(storage: Storage, there: Elsewhere, path: str, theirs: Sight) -> Proof:
    """Of a medium on storage of each host's own: SAME where the destination has one of the same content."""
    if theirs.file_inode is None:
        return Proof.APART
    mine = await storage.sight(path, "none")
    if mine.size != theirs.size:
        return Proof.OTHER
    ours, other = await both(unless_aborted(storage.digest(path)), there.digest(path))
    return Proof.SAME if ours is not None and ours == other else Proof.OTHER


def _another_file(disk: Disk) -> Refusal:
    message = f"disk {disk.target}: both hosts see the folder of {disk.path}, but another file under that name"
    fix = "find out what is mounted over it, or where a symbolic link leads"
    return Refusal(code="disk-not-the-same", message=message, fix=fix)


def _snapshots_inside(disk: Disk) -> Refusal:
    count = "a snapshot" if disk.snapshots == 1 else f"{disk.snapshots} snapshots"
    message = (
        f"disk {disk.target}: {disk.path} is only on this host, with {count} inside the image, which a copy would "
        "not have"
    )
    fix = (
        f"shut the VM down, list them (qemu-img snapshot -l {disk.path}), delete each (qemu-img snapshot -d NAME "
        f"{disk.path}) and start the VM again; or put the disk on storage both hosts see"
    )
    return Refusal(code="disk-snapshots", message=message, fix=fix)


def _tpm_shared(path: str) -> Refusal:
    message = f"both hosts see {path}, the state of the VM's TPM: an arrival that fails could remove it"
    fix = "shut the VM down and move the state to storage of its host alone, where libvirt keeps it by default"
    return Refusal(code="tpm-shared", message=message, fix=fix)


def _another_medium(disk: Disk) -> Refusal:
    message = f"{disk.device} {disk.target}: the destination has another file as {disk.path}"
    fix = f"put the same file there, or eject it (virsh change-media VM {disk.target} --eject)"
    return Refusal(code="medium-differs", message=message, fix=fix)
