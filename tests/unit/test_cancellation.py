"""A task that is told to stop must stop."""

from __future__ import annotations

from pathlib import Path

import sterna


def test_nothing_swallows_a_cancellation() -> None:
    """CPython 3.11's `wait_for` does, in the instant in which what it waits for comes; `timeout` does not."""
    source = Path(sterna.__file__).parent
    assert [str(p) for p in source.rglob("*.py") if "asyncio.wait_for(" in p.read_text()] == []
