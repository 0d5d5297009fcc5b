"""Durations as people read them."""

from __future__ import annotations

import math


def in_words(seconds: float) -> str:
    """Two units at most, rounded up: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = math.ceil(seconds)
    hours, minutes = divmod(-(-whole // 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
