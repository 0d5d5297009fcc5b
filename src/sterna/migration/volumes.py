"""The volumes of a VM, each at the adapter that knows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sterna.domain.model import Disk
from sterna.kit.tasks import all_of
from sterna.migration.context import HostPorts
from sterna.ports.volume import Volumes

T = TypeVar("T")


async def of_each(host: HostPorts, disks: Sequence[Disk], act: Callable[[Volumes, Disk], Awaitable[T]]) -> list[T]:
    """The results of `act` for each disk, in their order; in parallel, so that it takes as long as the slowest.

    Raises what the first of them raises, once none goes on; Permanent, before any, where no adapter knows one.
    """
    known = [(host.volumes_for(disk), disk) for disk in disks]
    return await all_of(act(volumes, disk) for volumes, disk in known)
