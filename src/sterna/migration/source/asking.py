"""What the source asks of the destination, and ends at once when the migration is aborted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sterna.domain.errors import (
    Cancelled,
)
from sterna.domain.model import Data
from sterna.migration.context import Context


async def unless_aborted(ctx: Context, call: Coroutine[Any, Any, Data]) -> Data:
    """The answer. Raises Cancelled at an abort: whatever the destination is doing for it meanwhile, it undoes."""
    asking, aborted = asyncio.ensure_future(call), asyncio.ensure_future(ctx.abort.wait())
    try:
        await asyncio.wait((asking, aborted), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Cancelled("aborted on request")
        return asking.result()
    finally:
        asking.cancel()
        aborted.cancel()
        await asyncio.gather(asking, aborted, return_exceptions=True)
