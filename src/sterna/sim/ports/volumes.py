"""The Volumes port on the simulated world: files on shared folders, and iSCSI with admission per initiator."""

from __future__ import annotations

from sterna.domain.errors import NotFound, Permanent, Temporary, Unreachable
from sterna.domain.model import Disk, DiskKind, IscsiSource, Refusal
from sterna.sim.world.host import SimHost
from sterna.sim.world.iscsi import SimTarget
from sterna.sim.world.world import World


class SimSharedFiles:
    """FILE disks that are not local (ports.volume.Volumes): there are no admissions, only the file itself is
    verified."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]

    def handles(self, disk: Disk) -> bool:
        """Files on shared storage."""
        return disk.kind is DiskKind.FILE and disk.local is False

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Is the file here, may it be opened, is it the same image?"""
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        problem = self._problem(disk)
        if problem is None:
            return []
        fix = f"make {disk.path} available on this host, at the same path and with the same access"
        return [Refusal(code="shared-file-unusable", message=f"disk {disk.target}: {problem}", fix=fix)]

    async def admitted(self, disk: Disk) -> bool:
        """A folder has no admissions."""
        return False

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: the same on every host."""
        return disk

    async def connect(self, disk: Disk) -> Disk:
        """P9: prove it. Raises Permanent."""
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        problem = self._problem(disk)
        if problem is not None:
            raise Permanent(f"disk {disk.target}: {problem}", fix="check that the shared folder is mounted here")
        return disk

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: nothing is connected."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: nothing was admitted."""

    def _problem(self, disk: Disk) -> str | None:
        path = disk.path or ""
        file = self._host.file(path)
        if file is None:
            return f"{path}: No such file or directory"
        if path in self._host.denied:
            return f"{path}: Permission denied"
        if disk.capacity_bytes not in (None, file.size_bytes):
            return f"{path} is an image of {file.size_bytes} bytes here, the VM's has {disk.capacity_bytes}"
        return None


class SimIscsiVolumes:
    """ISCSI disks (ports.volume.Volumes): the target admits this host's initiator, or storage refuses it."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host: SimHost = world.hosts[host]

    def handles(self, disk: Disk) -> bool:
        """LUNs that QEMU's own initiator reaches."""
        return disk.kind is DiskKind.ISCSI

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Does the volume exist, does the service answer, and is it this VM's?"""
        try:
            _refuse_anothers(disk, await self._target(disk))
        except NotFound as error:
            return [Refusal(code="volume-missing", message=f"disk {disk.target}: {error.message}", fix=error.fix)]
        except Unreachable as error:
            message = f"disk {disk.target}: {error.message}"
            return [Refusal(code="volume-service-down", message=message, fix=error.fix)]
        except Permanent as error:
            return [Refusal(code="volume-attachments", message=error.message, fix=error.fix)]
        return []

    async def admitted(self, disk: Disk) -> bool:
        """Is this host's initiator on the target's list? Raises Unreachable."""
        try:
            return self._host.initiator in (await self._target(disk)).admitted
        except NotFound:
            return False

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: admit this host's initiator. Raises NotFound, Unreachable; Permanent for another VM's volume."""
        target = await self._target(disk)
        _refuse_anothers(disk, target)
        if self._host.initiator not in target.admitted:
            self._world.admit(target.name, self._host.initiator, self._host.name)
        return self._as_mine(disk)

    async def connect(self, disk: Disk) -> Disk:
        """P9: log in and read the size. Raises Temporary while not admitted, Permanent on another size."""
        target = await self._target(disk)
        if self._host.initiator not in target.admitted:
            raise Temporary(
                f"disk {disk.target}: {target.name} cannot be opened: Target not found(515)",
                fix="check that the portal is reachable from this host and that the initiator is admitted",
            )
        size = target.volume.size_bytes
        if disk.capacity_bytes not in (None, size):
            raise Permanent(f"disk {disk.target}: LUN has {size} bytes here, the VM's disk {disk.capacity_bytes}")
        return self._as_mine(disk)

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: QEMU logs out when it ends; the host itself holds no session."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: withdraw this host's admission and end the sessions it still has."""
        try:
            target = await self._target(disk)
        except NotFound:
            return
        self._world.withdraw(target.name, self._host.initiator, self._host.name)
        self._world.end_sessions(target.name, self._host.initiator)

    async def _target(self, disk: Disk) -> SimTarget:
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        source = _source(disk)
        if not self._world.iscsi.up:
            raise Unreachable("the iSCSI target service does not answer", fix="start tgtd")
        if source.target not in self._world.iscsi.targets:
            raise NotFound(f"there is no target {source.target}", fix="check that the volume still exists")
        return self._world.iscsi.targets[source.target]

    def _as_mine(self, disk: Disk) -> Disk:
        source = _source(disk).model_copy(update={"initiator": self._host.initiator})
        return disk.model_copy(update={"iscsi": source})


def _refuse_anothers(disk: Disk, target: SimTarget) -> None:
    if target.vm_uuid not in ("", disk.vm_uuid):
        message = f"disk {disk.target}: {target.name} is attached to VM {target.vm_uuid}, not to {disk.vm_uuid}"
        raise Permanent(message, fix="see `openstack volume attachment list`")


def _source(disk: Disk) -> IscsiSource:
    if disk.iscsi is None:
        raise Permanent(f"disk {disk.target} is not an iSCSI disk")
    return disk.iscsi
