"""libvirt's settings for QEMU, as its file has them. What libvirtd has read at its start may be older."""

from __future__ import annotations

import re
from pathlib import Path

QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_SETTING = re.compile(r'^\s*([a-z0-9_]+)\s*=\s*"?([^"#\n]*?)"?\s*$', re.MULTILINE)
_LIST = r"^\s*{name}\s*=\s*\[(.*?)\]"
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


def settings_of(conf: Path = QEMU_CONF) -> dict[str, str]:
    """The one-line settings of `qemu.conf`. A file that cannot be read has none."""
    try:
        return dict(_SETTING.findall(conf.read_text()))
    except OSError:
        return {}


def list_of(conf: str, name: str) -> tuple[str, ...] | None:
    """A list in the text of `qemu.conf`, over as many lines as it has; None where it is not set. Pure."""
    found = re.search(_LIST.format(name=name), _COMMENT.sub("", conf), re.MULTILINE | re.DOTALL)
    return tuple(re.findall(r'"([^"]*)"', found[1])) if found else None
