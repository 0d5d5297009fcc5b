"""Absolute paths in the texts of a definition. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_PATH = re.compile(r'(?:^|[=:])\s*"?(/[^"]*)')
"""All of an option, or what stands behind its key or protocol: `/srv/a.img`, `file=/srv/a.img`, `fat:rw:/srv/a`."""
_COMMA = "\0"
"""No XML has one."""


def paths_in(value: str) -> tuple[str, ...]:
    """Those that a value of QEMU's command line names: `if=none,file=/srv/a,,b.img` (its commas are doubled),
    `{"filename": "/srv/a.img"}`, `json:{...}` inside either."""
    text = value.strip()
    in_json = text.removeprefix("json:")
    if in_json.startswith(("{", "[")):
        try:
            return tuple(dict.fromkeys(path for one in _texts(json.loads(in_json)) for path in all_paths(one)))
        except (ValueError, RecursionError):
            pass  # QEMU would refuse it; what looks like a path in it may be one
    found = []
    for option in text.replace(",,", _COMMA).split(","):
        found += [path.replace(_COMMA, ",").rstrip() for path in _PATH.findall(option)]
    return tuple(dict.fromkeys(found))


def all_paths(value: str) -> tuple[str, ...]:
    """Those that any value may name: as `paths_in`, and all of one that begins like a path, commas included."""
    whole = (value.rstrip(),) if value.startswith("/") else ()
    return tuple(dict.fromkeys((*whole, *paths_in(value))))


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for one in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _texts(one)
