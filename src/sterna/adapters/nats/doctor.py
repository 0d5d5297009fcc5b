"""What the doctor looks at in nats-server's configuration, where that is on this machine. Blocking."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sterna.domain.model import Data

PLACES = (Path("/etc/nats-server.conf"), Path("/etc/nats/nats-server.conf"), Path("/etc/nats/nats.conf"))
"""Debian's, and those of others."""
LARGEST = 4 << 20
_COMMENT = re.compile(r"(?:#|//).*$", re.MULTILINE)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ALLOWED = re.compile(r"\ballow_responses?\b[\s:=]*([^\s:=,}]+)", re.IGNORECASE)


def look_at_bus_rights(files: Iterable[Path]) -> Data:
    """The first of these files that gives clients the right to answer under any subject."""
    for file in files:
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                text = opened.read(LARGEST)
        except OSError:
            continue
        if allows_responses(text):
            return {"allow_responses": str(file)}
    return {}


def allows_responses(text: str) -> bool:
    """Does a configuration of nats-server have it, outside of comments and strings? Pure."""
    plain = _COMMENT.sub("", _STRING.sub('""', text))
    return any(value.lower() != "false" for value in _ALLOWED.findall(plain))
