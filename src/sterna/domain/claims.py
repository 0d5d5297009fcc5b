"""Which files other domains need, and whether two hosts see one and the same file. Pure.

Nothing is removed that another domain of either host names, or that both hosts see (docs/reference/files.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sterna.domain.model import Disk, DiskKind, Refusal, StateFile, Value


class Claim(Value):
    """A file, or a folder with all that is in it, which a definition names."""

    path: str
    owner: str
    """In words: `VM web (shutoff)`."""
    vm_uuid: str = ""
    image: bool = False
    """A disk or what one stands on: it may stand on further files, which nothing names."""
    format: str | None = None
    """Of an image, where the definition says it; libvirt takes any other for raw."""


class VolumeClaim(Value):
    """A volume on the network that a definition names."""

    volume: str
    """As `lun_name` has it."""
    owner: str
    """In words: `VM web (shutoff)`."""

    @property
    def target(self) -> str:
        """The iSCSI target that the LUN is on: admission is to a target."""
        return self.volume.removeprefix("iscsi://").rpartition("/")[0]


def lun_name(target: str, lun: int) -> str:
    """One name for a LUN, however a definition reaches it."""
    return f"iscsi://{target}/{lun}"


def volume_users(disks: Iterable[Disk], claims: Iterable[VolumeClaim]) -> dict[str, tuple[str, ...]]:
    """Targets of the disks whose LUN somebody else names, and who, in words."""
    owners: dict[str, dict[str, None]] = {}
    for claim in claims:
        owners.setdefault(claim.volume, {})[claim.owner] = None
    luns = {disk.target: lun_name(disk.iscsi.target, disk.iscsi.lun) for disk in disks if disk.iscsi is not None}
    return {target: tuple(owners[lun]) for target, lun in luns.items() if lun in owners}


class Sight(Value):
    """What one host sees of a token, and of the file that the token was left beside."""

    seen: bool = False
    token_inode: int | None = None
    file_inode: int | None = None
    """None: there is no such file."""
    size: int | None = None
    same_device: bool | None = None
    """The file is on the file system of its folder: nothing is mounted over it."""
    held: bool = False
    """The lock that the other host holds on its file is on this one."""
    mount: str = ""
    """Where the file's file system comes from, if that is another machine: `nfs4 nas:/images`."""
    exported: str = ""
    """The folder that holds the file and that this host's own file server gives to others."""

    @property
    def of_others(self) -> str:
        """Why a third host may use the file, in words; '' where nothing says so."""
        if self.mount:
            return f"it is on {self.mount}, which other hosts may use as well"
        return f"it is below {self.exported}, which this host exports to others" if self.exported else ""


class Proof(StrEnum):
    """Is a file of one host the other host's as well?"""

    SAME = "same"
    APART = "apart"
    """The other host does not see its folder."""
    MISSING = "missing"
    """It sees the folder, and no such file."""
    OTHER = "other"
    """It sees the folder, and another file under that name."""


def compare(mine: Sight, theirs: Sight) -> Proof:
    """The token proves that the folder is the same; inodes, that the file in it is.

    File systems whose inodes differ from host to host show that by the token's own: then the folder must do.
    """
    if not theirs.seen:
        return Proof.APART
    if theirs.file_inode is None:
        return Proof.MISSING
    if mine.same_device != theirs.same_device:
        return Proof.OTHER
    comparable = mine.token_inode == theirs.token_inode and mine.file_inode is not None
    return Proof.OTHER if comparable and mine.file_inode != theirs.file_inode else Proof.SAME


def compare_unwritten(mine: Sight, theirs: Sight) -> Proof | None:
    """Where no token can be written: is it the same file? None where that cannot be known.

    A lock on a random place of the file, taken by one host and seen by the other, proves it. File systems that do
    not pass locks on are known by where they come from. Two local ones are never taken for one, however alike they
    are: hosts may be clones of one image.
    """
    if theirs.held:
        return Proof.SAME
    if not mine.mount:
        return Proof.APART
    if theirs.mount != mine.mount:
        return None  # one may reach the same server by another name
    if theirs.file_inode is None:
        return Proof.MISSING
    return Proof.SAME if theirs.file_inode == mine.file_inode else Proof.OTHER


def misplaced(disk: Disk, why: str, fix: str) -> Refusal:
    """A disk that is only on the source, where Sterna neither makes nor removes files; `why` names the place."""
    if not disk.carried:
        return Refusal(code="disk-outside-instances", message=f"{disk.device} {disk.target}: {why}", fix=fix)
    message = f"{disk.device} {disk.target} is only on the source, and cannot be sent along: {why}"
    eject = f"virsh change-media VM {disk.target} --eject"
    fix = f"put the same file on the destination as {disk.path}, or eject it ({eject})"
    return Refusal(code="medium-missing", message=message, fix=fix)


def left_behind(disk: Disk) -> str | None:
    """The path of a medium that stays on the source: on the new host its drive is empty."""
    return disk.path if disk.kind is DiskKind.EMPTY else None


def without_medium(disk: Disk) -> Disk:
    """The disk as it is on the new host, where its medium stays behind."""
    return disk.model_copy(update={"kind": DiskKind.EMPTY, "local": False})


def with_medium(disk: Disk) -> Disk:
    """The disk as it is on the source."""
    return disk.model_copy(update={"kind": DiskKind.FILE}) if left_behind(disk) else disk


def cold_disks(live: tuple[Disk, ...], inactive: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """The disks of the persistent definition that the running guest does not have, or has as another file."""
    running = {disk.target: _where(disk) for disk in live}
    return tuple(
        disk
        for disk in inactive
        if disk.kind is not DiskKind.EMPTY and not disk.optional and running.get(disk.target) != _where(disk)
    )


def _where(disk: Disk) -> tuple[object, ...]:
    return *disk.place, disk.detail if disk.kind is DiskKind.OTHER else ""


def inside(state: StateFile) -> tuple[str, ...]:
    """The paths beside which a token shows who sees the state; of a TPM's, of a folder and of a file."""
    if state.kind == "tpm":
        return f"{state.path}/state", state.path
    return () if state.kind == "save" else (state.path,)
