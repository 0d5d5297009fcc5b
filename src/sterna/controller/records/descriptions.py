"""What an agent says of its host, each second: read once, where it is what it said before."""

from __future__ import annotations

from datetime import UTC, datetime

from sterna.domain import untrusted
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Data

_FLEETING = {"memory_free_bytes", "disk_free_bytes"}


def facts_of(raw: object, known: HostFacts | None, known_raw: Data) -> HostFacts:
    """Raises BadRequest. Most beacons differ from the one before (`known`) in what is free only."""
    if known is not None and isinstance(raw, dict):
        fleeting = {name: raw.get(name) for name in _FLEETING}
        memory, disk = type(fleeting["memory_free_bytes"]), type(fleeting["disk_free_bytes"])
        if memory is int and disk in (int, type(None)) and lasting(raw) == lasting(known_raw):
            return known.model_copy(update=fleeting)
    return untrusted.host_facts(raw)


def lasting(raw: Data) -> Data:
    """Without what changes all the time."""
    return {name: value for name, value in raw.items() if name not in _FLEETING}


def instant(value: object) -> str:
    """An instant of an agent's clock, ISO 8601 UTC; '' where it sent none. Raises ValueError."""
    return datetime.fromisoformat(str(value)).astimezone(UTC).isoformat() if value else ""
