"""Opens files that somebody else has named: another host, a domain's definition, an image's header. Blocking.

What is there is seen before it is opened. Opening a device may do something (`/dev/watchdog` resets the host unless
it is fed), and opening a pipe waits for its other end. So does reading what the kernel calls a file and is none
(`/proc/kmsg` takes the kernel's messages from who logs them).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sterna.kit.mounts import kind_of

_THE_KERNELS_OWN = frozenset(
    {
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "tracefs",
    }
)
"""File systems whose files are no data. sysfs has ACPI tables, which guests are given."""
_KINDS = (
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class WrongKind(OSError):
    """There is something else than a regular file. It was not opened."""


def open_regular(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    links: bool = True,
    devices: bool = False,
    folder: int | None = None,
) -> int:
    """A descriptor of a regular file, or of a block device as well (`devices`). It never waits for another process.

    `links`: a symbolic link as the last part of the path is followed. `folder`: the path is relative to this
    descriptor. Nothing is created. Raises OSError; of these WrongKind and IsADirectoryError for what is not opened.
    """
    follow = 0 if links else os.O_NOFOLLOW
    found = os.open(path, os.O_PATH | os.O_CLOEXEC | follow, dir_fd=folder)  # opens neither device nor pipe
    try:
        _demand_file(os.fstat(found), os.fspath(path), devices=devices)
        # by its number: whatever the path leads to by now, this is what was looked at
        return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(found)


@contextmanager
def opened(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    links: bool = True,
    devices: bool = False,
    folder: int | None = None,
) -> Iterator[int]:
    """As `open_regular`, and closed at the end."""
    fd = open_regular(path, flags, links=links, devices=devices, folder=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _demand_file(seen: os.stat_result, path: str, *, devices: bool) -> None:
    mode = seen.st_mode
    if devices and stat.S_ISBLK(mode):
        return
    if stat.S_ISREG(mode):
        if (kind := kind_of(seen.st_dev)) in _THE_KERNELS_OWN:
            raise WrongKind(errno.EINVAL, f"it is the kernel's own ({kind}), not a regular file", path)
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISLNK(mode):
        raise WrongKind(errno.ELOOP, os.strerror(errno.ELOOP), path)
    kind = next((name for is_it, name in _KINDS if is_it(mode)), "something unknown")
    raise WrongKind(errno.EINVAL, f"it is {kind}, not a regular file", path)
