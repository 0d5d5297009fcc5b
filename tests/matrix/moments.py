"""Moments of a run at which faults may strike."""

from __future__ import annotations

from typing import NamedTuple


class Moment(NamedTuple):
    """Something that happened in a fault-free run, at which a fault may strike."""

    key: str
    """Name, unique within a run: `host1: copy before #1`."""
    host: str
    what: str
    nth: int
    version: int
    """How often world, journals and messages had changed: equal versions on one host look alike after a death."""
    state: int = 0
    """Equal for moments that find everything that lasts alike (state.py)."""
