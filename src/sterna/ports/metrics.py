"""What a process serves to Prometheus."""

from __future__ import annotations

from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's text format."""


class Scraped(Protocol):
    """The metrics of this process."""

    async def text(self) -> bytes:
        """In Prometheus's text format, as of now or a moment ago. May be asked often. Raises Temporary."""
