"""Guests and links to forecast, and their copies on the simulator."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from sterna.domain.forecast import (
    JOB_MS,
    Load,
)
from sterna.domain.working_set import working_set
from tests.unit.domain.copy_simulator import MIB, Copy, steady

LIMIT_MS = 300
links = st.integers(20, 2000).map(lambda m: m * MIB)
memories = st.integers(256, 16384).map(lambda m: m * MIB)


def measured(memory: int, size: int, written: float, **more: Any) -> Load:
    """As libvirt's dirty rate calculation sees such a guest in a second, and in five."""

    def window(seconds: float) -> int:
        return int(size * (1 - math.exp(-written * seconds / size)))

    found = working_set((1, window(1)), (5, window(5)))
    return Load(memory_bytes=memory, dirty_bytes=window(1), working_set_bytes=found, **more)


def copied(memory: int, size: int, written: float, link: int) -> Copy:
    copy = Copy(memory, size, steady(written), steady(link), limit_ms=LIMIT_MS)
    copy.step_ms = min(LIMIT_MS / 5, max(1.0, memory / link))  # a thousandth of the first pass
    copy.advance(36_000_000)
    return copy


def took(copy: Copy) -> float:
    """libvirt's job: the simulator does nothing but send."""
    return copy.now_ms + JOB_MS
