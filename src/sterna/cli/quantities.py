"""Parses durations and rates: `300ms`, `10m`, `200MiB/s`."""

from __future__ import annotations

import re

import typer

_MS = {"ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6}
_BYTES = {"": 2**20, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_BITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_NUMBER = re.compile(r"\s*(\d{1,15}(?:\.\d+)?)\s*([a-zA-Z]*)\s*(/s)?\s*$")


def duration_ms(text: str) -> float:
    """Milliseconds of `300ms`, `1.5s`, `10m`, `2h`. Raises typer.BadParameter."""
    found = _NUMBER.match(text)
    if found is None or found[2].lower() not in _MS or found[3]:
        raise typer.BadParameter(f"{text!r} is not a valid duration; use e.g. 300ms, 90s, 10m or 2h")
    return float(found[1]) * _MS[found[2].lower()]


def rate_bytes_s(text: str) -> int:
    """Bytes/s of `200MiB/s`, `1GB/s`, `10Gbit/s`; a plain number is MiB/s. Raises typer.BadParameter."""
    found = _NUMBER.match(text)
    unit = found[2].lower() if found else "?"
    if found is None or (unit not in _BYTES and unit not in _BITS):
        raise typer.BadParameter(f"{text!r} is not a valid rate; use e.g. 200MiB/s, 1GB/s or 10Gbit/s")
    per_unit = _BYTES[unit] if unit in _BYTES else _BITS[unit] / 8
    return int(float(found[1]) * per_unit)
