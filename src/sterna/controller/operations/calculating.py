"""What takes long for a large fleet is calculated beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sterna.kit.threads import in_thread

T = TypeVar("T")

SMALL = 500
"""VMs of a fleet about which all is calculated in some milliseconds: no thread is needed."""


async def calculated(vms: int, act: Callable[[], T]) -> T:
    """`act`'s result, or its exception. It must not wait for anything, nor change what others use. `vms`: in the
    fleet."""
    return act() if vms <= SMALL else await in_thread(act, name="planner")
