"""A line of the doctor: one requirement of one host, whether it is met, what that means and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sterna.domain.model import Value


class Level(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    """Migrations work; something needs attention, or is not possible."""
    WRONG = "wrong"
    """Migrations from or to the host are refused, or would fail."""


class Finding(Value):
    """Result of one check."""

    check: str
    """Name of the check; docs/reference/doctor.md lists all."""
    level: Level
    host: str
    peer: str = ""
    """The other host, for checks between two hosts."""
    message: str
    """What was found, and what it means."""
    fix: str = ""
    """What to do; empty if nothing."""


def worst(findings: Iterable[Finding]) -> Level:
    """Of all of them; OK where there are none."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
