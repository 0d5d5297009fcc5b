"""The image service: what a VM's image demands of its hosts (protocol P7)."""

from __future__ import annotations

from typing import Protocol


class Images(Protocol):
    """Reads only."""

    async def properties(self, image: str) -> dict[str, str] | None:
        """The image's properties, by their names in Glance; None where there is no such image any more.

        Raises Temporary, Unreachable or Permanent where the service cannot be asked.
        """
