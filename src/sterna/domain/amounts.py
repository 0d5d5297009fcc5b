"""Sizes, rates and durations as people read them."""

from __future__ import annotations

UNKNOWN = "-"


def size(count: float | None) -> str:
    """Bytes: `1.5 GiB`."""
    if count is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def rate(count: float | None) -> str:
    """Bytes/s."""
    return UNKNOWN if count is None else f"{size(count)}/s"


def ms(duration: float | None) -> str:
    """Milliseconds: `12.0 ms`, `3.4 s`."""
    if duration is None:
        return UNKNOWN
    if duration < 100:
        return f"{duration:.1f} ms"
    return f"{duration:.0f} ms" if duration < 10_000 else f"{duration / 1000:.1f} s"
