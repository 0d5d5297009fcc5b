"""What a host's look at another one means. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.doctor.looks import FolderSeen, Frames, PeerLook

Line = tuple[str, Level, str, str]
"""Check, level, message and fix."""


def judge_peer(host: str, look: PeerLook) -> list[Finding]:
    """Every requirement of the way from `host` to that peer that could be looked at."""
    return [
        Finding(check=check, level=level, host=host, peer=look.peer, message=message, fix=fix)
        for check, level, message, fix in _lines(look)
    ]


def _lines(look: PeerLook) -> Iterator[Line]:
    if look.error:
        yield "peer-stream", Level.WARNING, f"it could not be asked: {look.error}", "see `sterna hosts`"
        return
    if look.name_error:
        fix = "add the name to the name service, or to /etc/hosts here; or use addresses in [migration]"
        yield "name-resolution", Level.WRONG, f"{look.address} is not resolved: {look.name_error}", fix
        return
    yield "name-resolution", Level.OK, f"{look.address} is known", ""
    yield _libvirt(look)
    if look.stream_tried:
        yield _stream(look)
    if look.frames is not Frames.UNKNOWN:
        yield _frames(look)
    for folder in look.folders:
        if (line := _folder(look.peer, folder)) is not None:
            yield line


def _libvirt(look: PeerLook) -> Line:
    if look.libvirt is None:
        return "peer-libvirt", Level.OK, "its libvirtd answers", ""
    return "peer-libvirt", Level.WRONG, look.libvirt.message, look.libvirt.fix


def _stream(look: PeerLook) -> Line:
    if look.stream is None:
        return "peer-stream", Level.OK, "a memory stream reaches it", ""
    return "peer-stream", Level.WRONG, look.stream.message, look.stream.fix


def _frames(look: PeerLook) -> Line:
    size = f"{look.segment} bytes of data each" if look.segment else "of full size"
    if look.frames is Frames.PASSED:
        return "path-mtu", Level.OK, f"packets with {size} reach it", ""
    fix = "give all devices on the way (switches, bonds, bridges) the hosts' MTU, or lower the hosts' MTU to theirs"
    message = f"packets with {size} are lost on the way: a copy would begin and then hang"
    return "path-mtu", Level.WRONG, message, fix


def _folder(peer: str, folder: FolderSeen) -> Line | None:
    if folder.seen is None:
        return None
    if folder.seen and folder.taken_for_local:
        fix = f'add "{folder.path}" to shared_filesystems in qemu.conf of both hosts, and restart libvirtd'
        message = (
            f"{peer} sees the same {folder.path}, and libvirt takes it for this host's own: VMs on it are refused"
        )
        return "shared-folders", Level.WRONG, message, fix
    if folder.seen:
        return "shared-folders", Level.OK, f"{peer} sees the same {folder.path}", ""
    if folder.network:
        fix = f"mount the same export at {folder.path} on {peer}"
        message = (
            f"{folder.path} is on shared storage here, and {peer} does not see it: disks there would be copied"
        )
        return "shared-folders", Level.WARNING, message, fix
    return "shared-folders", Level.OK, f"{folder.path} is local: disks in it are copied", ""
