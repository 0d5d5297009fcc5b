"""What the doctor looks at in certificates. Changes nothing. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sterna.adapters.identity.look import validity_of
from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.domain.trust.certificates import ending


def look_at_certificates(files: Mapping[str, str], now: datetime) -> Data:
    """How long each is valid. `files`: path -> what it is for."""
    return {"certificates": [_certificate(file, serves, now) for file, serves in files.items()]}


def _certificate(file: str, serves: str, now: datetime) -> Data:
    seen: Data = {"file": file, "serves": serves}
    try:
        begins, ends = validity_of(Path(file))
    except SternaError as error:
        return seen | {"faults": [error.message]}
    seen |= {"ends": ends.isoformat(), "warned": bool(ending(begins, ends, now))}
    if now >= ends:
        return seen | {"faults": [f"it expired on {ends:%Y-%m-%d %H:%M} UTC"]}
    if now < begins:
        return seen | {
            "faults": [f"it is not valid before {begins:%Y-%m-%d %H:%M} UTC: is this host's clock right?"]
        }
    return seen
