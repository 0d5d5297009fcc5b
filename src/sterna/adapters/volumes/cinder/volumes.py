"""Volumes of a cloud (`ports.volume.Volumes`): a disk whose serial is a Cinder volume's id.

Rows of the protocol:

    P4  create an attachment with this host's connector     R3  delete it
    P9  prove that the volume opens, then complete it       F3  delete the source's

Nothing but this host's own attachment is ever changed, so that a rollback leaves the source's alone. Whether the
volume is the VM's at all, and attached where the VM comes from, is Cinder's word, not the source's. Whose an
attachment is Cinder says only of those that are complete: one that a crash or a lost answer left unfinished is
completed first, and its host read then.

All that a row asks of Cinder for one disk has a limit together (`Cloud.together`); a repeat looks again.
"""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sterna.adapters.openstack.session import Cloud
from sterna.adapters.volumes.cinder.attachments import (
    ATTACHED,
    ATTACHING,
    HALF_MADE,
    Attachment,
    Attachments,
    VolumeSeen,
)
from sterna.adapters.volumes.cinder.refusals import refusals, stranger, undone
from sterna.adapters.volumes.lun import login_of, prove_lun
from sterna.domain.errors import NotFound, Permanent, SternaError, Temporary
from sterna.domain.model import Disk, DiskKind, IscsiSource, RbdSource, Refusal, SecretRef
from sterna.domain.secrets import Secret
from sterna.ports.secrets import Keyring


@dataclass(frozen=True)
class Connector:
    """This host, as Cinder's drivers want to know it."""

    host: str
    """Its name in the cloud: Nova and Cinder call it the same."""
    address: str
    initiator: str | None

    def words(self) -> dict[str, Any]:
        """What goes into the request."""
        words = {"host": self.host, "ip": self.address, "platform": platform.machine(), "os_type": "linux"}
        more: dict[str, Any] = {"initiator": self.initiator} if self.initiator else {}
        return {**words, "multipath": False, "do_local_attach": False, **more}


class CinderVolumes:
    """`ports.volume.Volumes` for Cinder's volumes on one host."""

    def __init__(
        self, cloud: Cloud, connector: Connector, *, qemu_img: str = "qemu-img", keyring: Keyring | None = None
    ) -> None:
        """`keyring`: where the passwords of targets are that want CHAP."""
        self._cloud = cloud
        self._cinder = Attachments(cloud)
        self._me = connector
        self._qemu_img = qemu_img
        self._keyring = keyring

    def handles(self, disk: Disk) -> bool:
        """Disks whose serial is a UUID: Cinder is asked for it, and one it does not know is refused."""
        return disk.kind is not DiskKind.EMPTY and _is_uuid(disk.volume_id)

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Why this host could not be given the volume, as Cinder and its driver have it now."""
        try:
            async with self._cloud.asking_for_a_check("Cinder"):
                seen = await self._cinder.look(_volume(disk))
        except NotFound as error:
            fix = (
                "check that the volume still exists; a disk that is not Cinder's must not have a UUID as its serial"
            )
            return [Refusal(code="volume-missing", message=f"disk {disk.target}: {error.message}", fix=fix)]
        except SternaError as error:
            message = f"disk {disk.target}: {error.message}"
            return [Refusal(code="volume-service-down", message=message, fix=error.fix)]
        return refusals(disk, seen, source=source, host=self._me.host, initiator=self._me.initiator)

    async def admitted(self, disk: Disk) -> bool:
        """Has this host an attachment? An unfinished one counts: `detach` finds out whose it is."""
        try:
            seen = await self._cinder.look(_volume(disk))
        except NotFound:
            return False
        return any(a.host == self._me.host or a.status == ATTACHING for a in seen.of(_instance(disk)))

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: this host's attachment, made or found; the disk as Cinder says that this host reaches it.

        Raises Permanent where the volume may not move (also when it changed since `check`). Nothing is changed at
        Cinder where it is another VM's, or not attached on the source. Raises Unknown where Cinder's answer was
        lost: a repeat finds what was made.
        """
        with self._cloud.together():
            instance = _instance(disk)
            seen = await self._cinder.look(_volume(disk))
            _refuse(stranger(disk, seen, source=source))
            seen = await self._settled(disk, seen)
            mine = self._mine(seen, instance)
            if mine is None:
                _refuse(undone(disk, seen, source=source, host=self._me.host, initiator=self._me.initiator))
                await self._sweep(seen, instance)
                mine = await self._cinder.create(seen.id, instance, self._me.words())
            found = reached(disk, mine.connection, self._me.initiator).model_copy(update={"attachment_id": mine.id})
            return with_login(found, mine.connection)

    async def connect(self, disk: Disk) -> Disk:
        """P9: open it with this host's initiator, then tell Cinder that it is in use.

        A Ceph image is opened by the guest's own QEMU alone, which has the key: before the switch-over, at M4.

        Raises Temporary (it does not open yet), Permanent (another size; the attachment is gone) or Unknown.
        """
        with self._cloud.together():
            seen = await self._cinder.look(_volume(disk))
            mine = next((a for a in seen.attachments if a.id == disk.attachment_id), None)
            if mine is None:
                raise Permanent(f"disk {disk.target}: attachment {disk.attachment_id} of volume {seen.id} is gone")
            if disk.iscsi is not None:
                await self._have_login(disk, mine)
                await prove_lun(disk, disk.iscsi, qemu_img=self._qemu_img, keyring=self._keyring)
            if mine.status != ATTACHED:
                await self._cinder.complete(mine.id)
            return disk

    async def _have_login(self, disk: Disk, mine: Attachment) -> None:
        """The secret of a login of this host's own is made of what Cinder returns; that of a login the VM's disk
        has brought along must be the same. Raises Permanent where it is not."""
        if not mine.connection.get("auth_method"):
            return
        word = str(mine.connection.get("auth_password", "")).encode()
        if self._keyring is not None and disk.chap is not None and disk.chap.uuid == mine.id:
            own = Secret(uuid=mine.id, kind=disk.chap.kind, usage=f"attachment {mine.id}")
            marked = own.model_copy(update={"made_for": disk.vm_uuid or "", "made_by": mine.id})
            await self._keyring.make_secret(marked, word)
            return
        login = await login_of(disk, self._keyring)
        if login is not None and login.password != word:
            message = f"disk {disk.target}: Cinder has another CHAP password for {self._me.host} than the VM's disk"
            raise Permanent(message, fix="set use_chap_auth = false in Cinder's back end, or detach it first")

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: QEMU's initiator logs out when its QEMU ends; the host itself holds no session."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: delete this host's attachment. One that is gone, or a volume that is, needs no deleting.

        Raises Temporary rather than delete the only attachment left: the guest's own, then.
        """
        with self._cloud.together():
            instance = _instance(disk)
            try:
                seen = await self._settled(disk, await self._cinder.look(_volume(disk)))
            except NotFound:
                return
            mine = self._mine(seen, instance)
            await self._sweep(seen, instance)
            if mine is None:
                return
            if not any(a.status == ATTACHED and a.id != mine.id for a in seen.of(instance)):
                message = f"disk {disk.target}: {mine.id} is the only attachment that volume {seen.id} has"
                fix = "see where the guest runs; is its host's attachment gone, or `host` in `[openstack]` wrong?"
                raise Temporary(message, fix=fix)
            await self._cinder.delete(mine.id)

    def _mine(self, seen: VolumeSeen, instance: str) -> Attachment | None:
        return next((a for a in seen.of(instance) if a.status == ATTACHED and a.host == self._me.host), None)

    async def _settled(self, disk: Disk, seen: VolumeSeen) -> VolumeSeen:
        """The volume with no attachment of this VM left whose host is not known."""
        unfinished = [a for a in seen.of(_instance(disk)) if a.status == ATTACHING]
        for attachment in unfinished:
            with contextlib.suppress(NotFound):  # gone since
                await self._cinder.complete(attachment.id)
        return await self._cinder.look(_volume(disk)) if unfinished else seen

    async def _sweep(self, seen: VolumeSeen, instance: str) -> None:
        """Delete what a create left that failed inside Cinder: while it is there, Cinder refuses other
        attachments."""
        for attachment in seen.of(instance):
            if attachment.status in HALF_MADE and not attachment.connection:
                await self._cinder.delete(attachment.id)


def reached(disk: Disk, connection: Mapping[str, Any], initiator: str | None) -> Disk:
    """The disk as Cinder's connection info says that this host reaches it, by QEMU's own initiators.

    Raises Permanent where it is neither iSCSI nor RBD, or not of the kind that the source has.
    """
    kind = connection.get("driver_volume_type")
    portal = re.fullmatch(r"\[?(.+?)\]?:(\d+)", str(connection.get("target_portal", "")))
    if kind == "iscsi" and disk.kind is DiskKind.ISCSI and portal is not None:
        source = IscsiSource(
            target=str(connection["target_iqn"]),
            lun=int(connection["target_lun"]),
            portal_host=portal[1],
            portal_port=int(portal[2]),
            initiator=initiator,
        )
        return disk.model_copy(update={"iscsi": source})
    if kind == "rbd" and disk.kind is DiskKind.RBD:
        ports = zip(connection.get("hosts") or (), connection.get("ports") or (), strict=False)
        monitors = tuple(f"{host}:{port}" for host, port in ports)
        return disk.model_copy(update={"rbd": RbdSource(name=str(connection["name"]), monitors=monitors)})
    raise Permanent(f"disk {disk.target}: Cinder connects it over {kind}, the VM has it as {disk.kind}")


def with_login(disk: Disk, connection: Mapping[str, Any]) -> Disk:
    """The disk with this host's own login, where Cinder's driver gives it another than the VM's disk has.

    Its secret has the attachment's id as its UUID.
    """
    username = connection.get("auth_username")
    if not connection.get("auth_method") or disk.chap is None or username in (None, disk.chap.username):
        return disk
    own = SecretRef(kind=disk.chap.kind, uuid=disk.attachment_id, username=username)
    return disk.model_copy(update={"secrets": (own, *(ref for ref in disk.secrets if ref != disk.chap))})


def _refuse(why: Refusal | None) -> None:
    if why is not None:
        raise Permanent(why.message, fix=why.fix)


def _instance(disk: Disk) -> str:
    """The VM's id at Cinder. Raises Permanent where the disk does not say whose it is."""
    if disk.vm_uuid is None:
        raise Permanent(f"disk {disk.target}: which VM volume {disk.volume_id} belongs to is not known")
    return disk.vm_uuid


def _volume(disk: Disk) -> str:
    if disk.volume_id is None:
        raise Permanent(f"disk {disk.target} has no volume id")
    return disk.volume_id


def _is_uuid(text: str | None) -> bool:
    try:
        return text is not None and str(UUID(text)) == text.lower()
    except ValueError:
        return False
