"""iSCSI volumes of a tgt target (`tgtadm`), reached by QEMU's own initiator: admission is a name on the target's
list, and storage itself refuses a host that is not on it (protocol P4, P9, R3, F2, F3).

Needs `tgtadm` with access to the target's control socket, and `qemu-img` with its iSCSI block driver
(Debian: qemu-block-extra).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sterna.adapters.volumes.lun import prove_lun
from sterna.domain.errors import NotFound, Permanent, Temporary, Unreachable
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
        """Is there such a target, does it hold this volume alone, can this host ask for admission?"""
        lun = _source(disk)
        if not self._initiator:
            fix = "set `initiator` in this host's agent settings"
            return [Refusal(code="initiator-unknown", message="this host has no initiator name", fix=fix)]
        try:
            target = await self._target(lun)
        except NotFound as error:
            return [Refusal(code="volume-missing", message=f"disk {disk.target}: {error.message}", fix=error.fix)]
        except (Temporary, Permanent) as error:
            return [
                Refusal(code="volume-service-down", message=f"disk {disk.target}: {error.message}", fix=error.fix)
            ]
        return _against(disk, lun, target)

    async def admitted(self, disk: Disk) -> bool:
        """Is this host's initiator on the target's list? Raises Unreachable if tgtd is away."""
        try:
            return self._initiator in (await self._target(_source(disk))).admitted
        except NotFound:
            return False

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: admit this host's initiator; the disk with this initiator in it. Already admitted is not an error.

        Raises NotFound (no such target) or Unreachable (tgtd away).
        """
        lun = _source(disk)
        target = await self._target(lun)
        if self._initiator not in target.admitted:
            done = await self._admin("target", "bind", target.tid, "--initiator-name", self._initiator)
            if done.code != 0 and self._initiator not in (await self._target(lun)).admitted:
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

        A target that is gone needs no detaching. Raises Unreachable if tgtd is away.
        """
        source = _source(disk)
        try:
            target = await self._target(source)
        except NotFound:
            return
        if self._initiator in target.admitted:
            done = await self._admin("target", "unbind", target.tid, "--initiator-name", self._initiator)
            if done.code != 0 and self._initiator in (await self._target(source)).admitted:
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

    async def _target(self, source: IscsiSource) -> Target:
        for target in await self.targets():
            if target.name == source.target:
                return target
        raise NotFound(f"there is no target {source.target}", fix="check that the volume still exists")

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
