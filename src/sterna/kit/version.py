"""The version of what runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed() -> str:
    """Of Sterna; '' where it runs from its source tree without being installed."""
    try:
        return version("sterna")
    except PackageNotFoundError:
        return ""
