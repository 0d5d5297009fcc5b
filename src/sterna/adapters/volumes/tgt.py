"""iSCSI volumes, reached by QEMU's own initiator. Of a tgt target (`tgtadm`) admission is a name on the target's
list, and storage itself refuses a host that is not on it (protocol P4, P9, R3, F2, F3).

A target that this machine's tgt does not have is another machine's. Who may open it is that machine's business: the
host logs in, or it is refused, and nothing is admitted or withdrawn.

Needs `qemu-img` with its iSCSI block driver (Debian: qemu-block-extra), and `tgtadm` with access to the target's
control socket where tgt serves the volumes.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from sterna.adapters.volumes.lun import prove_lun
from sterna.domain.errors import Permanent, Temporary, Unreachable
from sterna.domain.model import Disk, DiskKind, IscsiSource, Refusal
from sterna.kit.command import Finished, run
from sterna.ports.secrets import Keyring

_TGTADM_S = 5.0
"""tgtadm talks over a local socket; milliseconds when tgtd is well."""
_ADMISSION_FIX = "check that tgtd runs and that `tgt_socket` in the agent's settings is its control socket"


@dataclass(frozen=True)
class Target:
    """One target as `tgtadm --op show` prints it."""

    tid: int
    name: str
    luns: tuple[int, ...] = ()
    """LUNs with a backing store; tgt's own controller at LUN 0 is left out."""
    admitted: tuple[str, ...] = ()
    """Initiator names and addresses on its list."""
    sessions: tuple[tuple[int, int, str], ...] = ()
    """(session id, connection id, initiator name) of each connection."""


class TgtVolumes:
    """`ports.volume.Volumes` for ISCSI disks; admits and withdraws THIS host's initiator name."""

    def __init__(
        self,
        initiator: str,
        *,
        tgt_socket: str | None = None,
        tgtadm: str = "tgtadm",
        qemu_img: str = "qemu-img",
        keyring: Keyring | None = None,
    ) -> None:
        """`keyring`: where the passwords of targets are that want CHAP."""
        self._initiator = initiator
        self._tgtadm = tgtadm
        self._qemu_img = qemu_img
        self._keyring = keyring
        self._env = {"TGT_IPC_SOCKET": tgt_socket} if tgt_socket else {}

    def handles(self, disk: Disk) -> bool:
        """iSCSI disks."""
        return disk.kind is DiskKind.ISCSI

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Is there such a target, does it hold this volume alone, can this host ask for admission? Of a target that
        is not tgt's: can this host open the LUN?"""
        lun = _source(disk)
        if not self._initiator:
            fix = "set `initiator` in this host's agent settings"
            return [Refusal(code="initiator-unknown", message="this host has no initiator name", fix=fix)]
        try:
            target = await self._target(lun)
        except (Temporary, Permanent) as error:
            return [
                Refusal(code="volume-service-down", message=f"disk {disk.target}: {error.message}", fix=error.fix)
            ]
        return await self._against_opening(disk) if target is None else _against(disk, lun, target)

    async def _against_opening(self, disk: Disk) -> list[Refusal]:
        """Raises Permanent where what opens is not the VM's disk."""
        secret = disk.chap
        if secret is not None and self._keyring is not None and not await self._keyring.secrets_like((secret,)):
            return []  # it is brought along
        try:
            await self.connect(disk)
        except Temporary as error:
            fix = (
                f"admit {self._initiator} at the target, and see that its portal is reachable from this host; if "
                "this machine's tgt serves it, see that the volume still exists"
            )
            return [Refusal(code="volume-missing", message=error.message, fix=fix)]
        return []

    async def admitted(self, disk: Disk) -> bool:
        """Is this host's initiator on the target's list? Raises Unreachable if tgtd is away."""
        target = await self._target(_source(disk))
        return target is not None and self._initiator in target.admitted

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: admit this host's initiator; the disk with this initiator in it. Already admitted is not an error.

        Raises Permanent, or Unreachable (tgtd away).
        """
        lun = _source(disk)
        target = await self._target(lun)
        if target is not None and self._initiator not in target.admitted:
            done = await self._admin("target", "bind", target.tid, "--initiator-name", self._initiator)
            if done.code != 0 and not await self.admitted(disk):
                raise Permanent(f"tgtd would not admit {self._initiator} to {lun.target}: {done.words}")
        return disk.model_copy(update={"iscsi": lun.model_copy(update={"initiator": self._initiator})})

    async def connect(self, disk: Disk) -> Disk:
        """P9: prove it by logging in with this host's initiator and reading the LUN's size, read-only.

        Raises Temporary (no answer, not admitted yet) or Permanent (another size than the VM's disk).
        """
        source = _source(disk).model_copy(update={"initiator": self._initiator})
        await prove_lun(disk, source, qemu_img=self._qemu_img, keyring=self._keyring)
        return disk.model_copy(update={"iscsi": source})

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: QEMU's initiator logs out when its QEMU ends; the host itself holds no session."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: take this host's initiator off the list and end what sessions it still has.

        A target that is gone, or not tgt's, needs no detaching. Raises Unreachable if tgtd is away.
        """
        source = _source(disk)
        target = await self._target(source)
        if target is None:
            return
        if self._initiator in target.admitted:
            done = await self._admin("target", "unbind", target.tid, "--initiator-name", self._initiator)
            if done.code != 0 and await self.admitted(disk):
                raise Temporary(f"tgtd would not withdraw {self._initiator} from {source.target}: {done.words}")
        # Taking a name off the list leaves its open sessions alone: without this a guest that was cut off
        # from its agent could go on writing.
        for sid, cid, initiator in target.sessions:
            if initiator == self._initiator:
                await self._admin("conn", "delete", target.tid, "--sid", str(sid), "--cid", str(cid))

    async def targets(self) -> list[Target]:
        """Every target of this tgtd. Raises Unreachable if it is away."""
        done = await self._admin("target", "show", None)
        if done.code != 0:
            raise Unreachable(f"tgtd does not answer: {done.words}", fix=_ADMISSION_FIX)
        return parse_targets(done.out)

    async def _target(self, source: IscsiSource) -> Target | None:
        """As this machine's tgt has it; None where it has none of that name, or there is no tgt.

        Raises Unreachable, Temporary, Permanent.
        """
        if not self._env and shutil.which(self._tgtadm) is None:
            return None
        return next((target for target in await self.targets() if target.name == source.target), None)

    async def _admin(self, mode: str, op: str, tid: int | None, *more: str) -> Finished:
        which = [] if tid is None else ["--tid", str(tid)]
        argv = [self._tgtadm, "--lld", "iscsi", "--mode", mode, "--op", op, *which, *more]
        return await run(argv, limit_s=_TGTADM_S, env=self._env)


def parse_targets(text: str) -> list[Target]:
    """What `tgtadm --mode target --op show` printed."""
    parts = re.split(r"^Target (\d+): (\S+)$", text, flags=re.MULTILINE)
    found = []
    for tid, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        sessions = []
        for block in re.split(r"^\s+I_T nexus: ", body, flags=re.MULTILINE)[1:]:
            initiator = re.search(r"Initiator: (\S+)", block)
            for cid in re.findall(r"Connection: (\d+)", block):
                sessions.append((int(block.split()[0]), int(cid), initiator[1] if initiator else ""))
        luns = [
            int(block.split()[0])
            for block in re.split(r"^\s+LUN: ", body, flags=re.MULTILINE)[1:]
            if not re.search(r"Type: controller", block)
        ]
        acl = body.partition("ACL information:")[2]
        found.append(Target(int(tid), name, tuple(luns), tuple(acl.split()), tuple(sessions)))
    return found


def _source(disk: Disk) -> IscsiSource:
    if disk.iscsi is None:
        raise Permanent(f"disk {disk.target} is not an iSCSI disk")
    return disk.iscsi


def _against(disk: Disk, source: IscsiSource, target: Target) -> list[Refusal]:
    if source.lun not in target.luns:
        message = f"disk {disk.target}: {source.target} has no LUN {source.lun}"
        return [Refusal(code="volume-missing", message=message, fix="check that the volume still exists")]
    if len(target.luns) > 1:
        # Admission is per target: withdrawing one VM's would cut off the others'.
        message = f"disk {disk.target}: target {source.target} holds {len(target.luns)} LUNs"
        return [Refusal(code="target-shared", message=message, fix="give each volume a target of its own")]
    return []
