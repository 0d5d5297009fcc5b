"""Files that a running guest's QEMU has open, and whose path leads to another file by now.

A backup that is moved over a disk's file changes nothing for the guest: QEMU keeps the old one. What is at the path
would be opened on the destination, or removed here after the move.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sterna.adapters.host import open_files
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.domain.errors import StorageSilent
from sterna.domain.model import Refusal
from sterna.kit.mounts import look_at


def kept_open(domain: Element) -> dict[str, str]:
    """Path -> what it is to the guest, of each file that QEMU has open for as long as the guest runs. Pure."""
    found: dict[str, str] = {}
    for disk in domain.iterfind("devices/disk"):
        target = disk.find("target")
        for path in _files(disk):
            found.setdefault(path, f"disk {target.get('dev', '') if target is not None else ''}")
    nvram = domain.find("os/nvram")
    if nvram is not None:
        source = nvram.find("source")
        path = (source.get("file") if source is not None else nvram.text) or ""
        found |= {path.strip(): "NVRAM"} if path.strip().startswith("/") else {}
    return found


def _files(disk: Element) -> Iterator[str]:
    """Its own and those it stands on; not a mirror's."""
    for source in disk.iter("source"):
        path = source.get("file", "")
        if path.startswith("/") and not any(above.tag == "mirror" for above in source.iterancestors()):
            yield path


async def refusals(vm: str, files: Mapping[str, str], pid: int | None) -> list[Refusal]:
    """A reason for each of `files` (of `kept_open`) that the process does not have open under its path."""
    return [_refusal(vm, what, path) for path, what in files.items() if pid and await _is_another(path, pid)]


async def _is_another(path: str, pid: int) -> bool:
    try:
        return await look_at(lambda: open_files.is_another(path, pid), path)
    except StorageSilent:  # the checks of its disks say so
        return False


def _refusal(vm: str, what: str, path: str) -> Refusal:
    message = f"{what}: {path} was replaced after {vm} had been started; the guest still uses the old file"
    fix = f"shut {vm} down and start it again: it then uses the new file"
    if what.startswith("disk"):
        fix += (
            f"; to keep what the guest has, copy that first: virsh blockcopy {vm} {what.removeprefix('disk ')} "
            "--dest FILE --transient-job --finish"
        )
    return Refusal(code="file-replaced", message=message, fix=fix)
