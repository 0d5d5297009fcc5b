"""The text of a scrape that is never written."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sterna.adapters.metrics import exposition
from sterna.adapters.metrics.exposition import Exposition
from sterna.domain.errors import Temporary
from sterna.sim.world.clock import SimClock


async def test_a_text_that_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is left alone, and the next scrape has one of its own."""
    hangs = threading.Event()
    monkeypatch.setattr(exposition, "WRITING_S", 0.1)
    monkeypatch.setattr(exposition, "written", lambda families: hangs.wait(30) and b"")

    async def nothing() -> list[object]:
        return []

    shown = Exposition(nothing, SimClock())  # type: ignore[arg-type]
    try:
        with pytest.raises(Temporary, match="not written"):
            async with asyncio.timeout(5):
                await shown.text()
        monkeypatch.setattr(exposition, "written", lambda families: b"x")
        assert await shown.text() == b"x"
    finally:
        hangs.set()
