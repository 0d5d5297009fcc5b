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
        yield "peer-stream", Level.WARNING, f"it could not be checked: {look.error}", "see `sterna hosts`"
        return
    if look.name_error:
        fix = "add the name to the DNS, or to /etc/hosts here; or use IP addresses in [migration]"
        yield "name-resolution", Level.WRONG, f"{look.address} cannot be resolved: {look.name_error}", fix
        return
    yield "name-resolution", Level.OK, f"{look.address} can be resolved", ""
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
    packets = f"packets with {look.segment} bytes of data" if look.segment else "full-size packets"
    if look.frames is Frames.PASSED:
        return "path-mtu", Level.OK, f"{packets} reach it", ""
    fix = (
        "set the hosts' MTU on all devices between them (switches, bonds, bridges), or lower the hosts' MTU to "
        "theirs"
    )
    message = f"{packets} are lost between the hosts: a copy would start and then hang"
    return "path-mtu", Level.WRONG, message, fix


def _folder(peer: str, folder: FolderSeen) -> Line | None:
    if folder.seen is None:
        return None
    if folder.seen and folder.taken_for_local:
        fix = f'add "{folder.path}" to shared_filesystems in qemu.conf of both hosts, and restart libvirtd'
        message = (
            f"{peer} sees the same {folder.path}, but libvirt treats it as local: VMs with disks there are refused"
        )
        return "shared-folders", Level.WRONG, message, fix
    if folder.seen:
        return "shared-folders", Level.OK, f"{peer} sees the same {folder.path}", ""
    if folder.network:
        fix = f"mount the same export at {folder.path} on {peer}"
        message = (
            f"{folder.path} is on shared storage here, but {peer} does not see it: disks there would be copied"
        )
        return "shared-folders", Level.WARNING, message, fix
    return "shared-folders", Level.OK, f"{folder.path} is local: disks in it are copied", ""
