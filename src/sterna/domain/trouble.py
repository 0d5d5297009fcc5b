"""What keeps a host from taking part in migrations although its agent runs. Pure.

An agent sends it with every beacon; the controller shows it and uses it to choose hosts.
"""

from __future__ import annotations

from sterna.domain.model import Value


class Trouble(Value):
    """One or several things that are wrong with a host."""

    why: str
    """With since when, as a person reads it."""
    since: str
    """ISO 8601 UTC, by the clock of the reporting process."""
    fix: str = ""
