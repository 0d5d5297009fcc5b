"""Sizes as libvirt writes them, in bytes. Pure."""

from __future__ import annotations

from sterna.adapters.libvirt.xml.metadata import Element

_UNITS = {
    "b": 1, "bytes": 1,
    "kb": 10**3, "k": 2**10, "kib": 2**10,
    "mb": 10**6, "m": 2**20, "mib": 2**20,
    "gb": 10**9, "g": 2**30, "gib": 2**30,
    "tb": 10**12, "t": 2**40, "tib": 2**40,
}  # fmt: skip


def size_of(source: Element | str | None, *, unit: str = "KiB") -> int | None:
    """A number, or an element like <memory unit='KiB'>; libvirt's default unit is KiB. None where there is none."""
    if source is None:
        return None
    number, unit = (source, unit) if isinstance(source, str) else (source.text or "", source.get("unit", unit))
    return int(number.strip()) * _UNITS.get(unit.lower(), 2**10) if number.strip() else None
