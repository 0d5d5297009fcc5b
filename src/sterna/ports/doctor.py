"""What the doctor looks at on a host, in parts: each knows one thing, and none of them changes anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sterna.domain.doctor.looks import Frames
from sterna.domain.model import Data


class Part(NamedTuple):
    """One part of a look at a host."""

    what: str
    """What it looks at, in words."""
    look: Callable[[], Awaitable[Data]]
    """Fields of `domain.doctor.looks.HostLook`, those that it could see. Raises SternaError, OSError."""
    of_libvirt: bool = False
    """It asks libvirtd: where that is away, one line is enough."""


class Sent(NamedTuple):
    """What became of packets of full size."""

    frames: Frames
    segment: int | None = None
    """Bytes of data in each."""


class PathProbe(Protocol):
    """Packets of full size on their way to another host."""

    async def send(self, address: str, port: int) -> Sent:
        """Connect to a port where the other host expects one connection (`StreamProbe.expect`), and send more than
        fits into a few packets. Takes some seconds at most; raises nothing."""

    async def resolve(self, address: str) -> str:
        """Why this name is not resolved; '' where it is, or is an address. Raises nothing."""


class Folders(Protocol):
    """Folders that several hosts may see."""

    async def shared(self, folders: tuple[str, ...]) -> dict[str, bool]:
        """These folders and those that qemu.conf calls shared: is each on a network or cluster file system, or does
        qemu.conf call it shared? Raises TimeoutError."""


@dataclass(frozen=True)
class DoctorTools:
    """What a host's doctor has beside the ports of migrations."""

    parts: tuple[Part, ...] = ()
    path: PathProbe | None = None
    folders: Folders | None = None
    instances_dir: str = ""


NO_TOOLS = DoctorTools()
