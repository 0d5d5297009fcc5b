"""What the source asks of the destination, and ends at once when the migration is aborted."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from sterna.kit import aborts
from sterna.migration.context import Context

T = TypeVar("T")


async def unless_aborted(ctx: Context, call: Coroutine[Any, Any, T]) -> T:
    """The answer. Raises Cancelled at an abort: the destination undoes what it is doing for it."""
    return await aborts.unless_aborted(call, ctx.abort)
