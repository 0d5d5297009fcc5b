"""Folders of this host that its own file servers give to other hosts. Blocking."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NFS = (Path("/var/lib/nfs/etab"), Path("/proc/fs/nfsd/exports"))
"""What exportfs has told the kernel, and what the kernel serves: a folder, then white space and its clients."""
_SAMBA, _USER_SHARES = Path("/etc/samba/smb.conf"), Path("/var/lib/samba/usershares")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_SHARE = re.compile(r"^\s*path\s*=\s*(/.*?)\s*$", re.MULTILINE | re.IGNORECASE)


def exported(path: str, root: Path = Path("/")) -> str:
    """The exported folder that holds `path`, or what it leads to; '' where none is known. `root`: where the
    servers' settings are looked for. The folders themselves are not looked at: one may be on a dead file system.
    """
    places = {PurePosixPath(os.path.normpath(path)), PurePosixPath(os.path.realpath(path))}
    for folder in _folders(root):
        if any(place.is_relative_to(os.path.normpath(folder)) for place in places):
            return folder
    return ""


def _folders(root: Path) -> Iterator[str]:
    for file in _NFS:
        for line in _text(root, file).splitlines():
            if line.startswith("/"):
                yield _ESCAPED.sub(lambda found: chr(int(found[1], 8)), line.split(maxsplit=1)[0])
    yield from _SHARE.findall(_text(root, _SAMBA))
    shares = root / _USER_SHARES.relative_to("/")
    for share in sorted(shares.iterdir()) if shares.is_dir() else ():
        yield from _SHARE.findall(_text(root, _USER_SHARES / share.name))


def _text(root: Path, file: Path) -> str:
    try:
        return (root / file.relative_to("/")).read_text(errors="replace")
    except OSError:
        return ""
