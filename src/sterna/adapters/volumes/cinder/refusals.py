"""Which volumes may move, as a pure function of what Cinder says. Every reason at once."""

from __future__ import annotations

from sterna.adapters.volumes.cinder.attachments import ATTACHED, ATTACHING, Attachment, VolumeSeen
from sterna.domain.model import Disk, Refusal
from sterna.domain.refusals import Code

_BRICK = "os-brick would have to connect it, which is not built"
_RESTING = ("in-use", "reserved")
"""`reserved` comes of a create that fell over: it is swept away before the next."""


def refusals(disk: Disk, seen: VolumeSeen, *, source: str, host: str, initiator: str | None) -> list[Refusal]:
    """Why `host` could not be given this VM's volume, which `source` has."""
    instance = disk.vm_uuid or ""
    attached = [a for a in seen.of(instance) if a.status == ATTACHED]
    others = [a for a in attached if a.host != host]
    found = []
    if seen.multiattach:
        found.append(
            _no(disk, "volume-multiattach", f"volume {seen.id} may be attached to several VMs", "detach it first")
        )
    encrypted = seen.encrypted or any(a.connection.get("encrypted") for a in attached)
    if encrypted and not disk.encrypted:  # with one, libvirt's secret is carried like any other
        message = f"volume {seen.id} is encrypted, and the VM's disk names no LUKS secret: QEMU does not decrypt it"
        found.append(_no(disk, "volume-encrypted", message, "detach it first"))
    if disk.read_only or seen.read_only or any(a.read_only for a in attached):
        found.append(_no(disk, "volume-read-only", f"volume {seen.id} is attached read-only", "detach it first"))
    unfinished = any(a.status == ATTACHING for a in seen.of(instance))
    if seen.status not in _RESTING and not (seen.status == "attaching" and unfinished):
        message = f"volume {seen.id} is {seen.status}, not in-use"
        found.append(_no(disk, "volume-state", message, "wait until Cinder has finished, or reset its state"))
    if seen.moving is not None:
        message = f"Cinder moves volume {seen.id} itself ({seen.moving})"
        found.append(_no(disk, "volume-state", message, "wait until it has"))
    if [a.host for a in others] != [source]:
        found.append(_attached(disk, seen, [a.host or "?" for a in others], source))
    for one in others:
        found += _transport(disk, one, initiator)
    return found


def stranger(disk: Disk, seen: VolumeSeen, *, source: str) -> Refusal | None:
    """Why it is not the volume of a VM that comes from `source`, whatever that host says; None where it is."""
    attached = [a for a in seen.of(disk.vm_uuid or "") if a.status == ATTACHED]
    if any(a.host == source for a in attached):
        return None
    return _attached(disk, seen, [a.host or "?" for a in attached], source)


def _attached(disk: Disk, seen: VolumeSeen, where: list[str], source: str) -> Refusal:
    hosts = ", ".join(sorted(where)) or "no host"
    message = f"Cinder has volume {seen.id} of VM {disk.vm_uuid} attached on {hosts}, and the VM is on {source}"
    fix = "it must be attached once, on the host the VM runs on: see `openstack volume attachment list`"
    return _no(disk, "volume-attachments", message, fix)


def _no(disk: Disk, code: Code, message: str, fix: str) -> Refusal:
    return Refusal(code=code, message=f"disk {disk.target}: {message}", fix=fix)


def undone(disk: Disk, seen: VolumeSeen, *, source: str, host: str, initiator: str | None) -> Refusal | None:
    """The first of the reasons, for P4: what `check` allowed may have changed since."""
    return next(iter(refusals(disk, seen, source=source, host=host, initiator=initiator)), None)


def _transport(disk: Disk, source: Attachment, initiator: str | None) -> list[Refusal]:
    """Can QEMU itself reach what the driver offers? Judged by what the source was offered."""
    kind = str(source.connection.get("driver_volume_type"))
    if kind not in ("iscsi", "rbd"):
        return [_no(disk, "volume-transport", f"its volume is connected over {kind}", f"detach it first: {_BRICK}")]
    found = []
    if disk.kind.value != kind:
        message = f"its host attached it for the guest (os-brick): QEMU has it as {disk.kind}, not over {kind}"
        found.append(
            _no(disk, "volume-host-attached", message, f"start the VM with a network disk instead: {_BRICK}")
        )
    if kind == "rbd":
        return found
    login = _login(disk, source)
    if login:
        fix = "set use_chap_auth = false in Cinder's back end, or detach it first"
        found.append(_no(disk, "volume-chap", login, fix))
    if not initiator:
        fix = "set `initiator` in `[volumes]` of this host's agent settings"
        found.append(_no(disk, "initiator-unknown", "this host has no initiator name", fix))
    return found


def _login(disk: Disk, source: Attachment) -> str:
    """Why the login its target wants cannot be had from the VM's definition; '' where it can, or none is wanted."""
    method, username = source.connection.get("auth_method"), source.connection.get("auth_username")
    if not method:
        return ""
    if method != "CHAP" or disk.chap is None:
        return f"its target wants {method}, and the VM's disk names no secret for it"
    if username is not None and username != disk.chap.username:
        return f"its target wants CHAP as {username}, and the VM's disk logs in as {disk.chap.username}"
    return ""
