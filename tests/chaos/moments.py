"""Named moments of a migration, for which a case waits before it strikes or heals. Never a time.

Most are entries in an agent's own journal; the others are things seen in the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sterna.lab import links

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

MIB = 1 << 20


class Moment(Protocol):
    """Something that is reached once and stays reached, or is waited for while it is true."""

    def reached(self, scene: Scene) -> bool: ...


@dataclass(frozen=True)
class Entry:
    """An entry of this name (and kind, where one is given) is in the journal of the source or the destination, so
    many times."""

    role: str
    name: str
    kind: str | None = None
    times: int = 1

    def reached(self, scene: Scene) -> bool:
        return scene.journals[scene.host(self.role)].has(scene.migration, self.name, self.kind, self.times)

    def __str__(self) -> str:
        words = [self.name, self.kind or "", f"{self.times} times" if self.times > 1 else "", f"({self.role})"]
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class FirstOf:
    """Whichever of these comes first, where libvirt does not always do the same."""

    moments: tuple[Moment, ...]

    def reached(self, scene: Scene) -> bool:
        return any(moment.reached(scene) for moment in self.moments)

    def __str__(self) -> str:
        return " or ".join(str(moment) for moment in self.moments)


@dataclass(frozen=True)
class Copied:
    """So many MiB of the local disk have reached the destination's file."""

    mib: int

    def reached(self, scene: Scene) -> bool:
        return sum(scene.lab.allocated_bytes(scene.destination).values()) >= self.mib * MIB

    def __str__(self) -> str:
        return f"{self.mib} MiB of the disk copied"


@dataclass(frozen=True)
class InVain:
    """The kernel has repeated a segment on the broken link so often without an answer."""

    times: int
    link: str

    def reached(self, scene: Scene) -> bool:
        return links.retransmissions(scene.link(self.link)) >= self.times

    def __str__(self) -> str:
        return f"{self.times} retransmissions on the {self.link} link"


@dataclass(frozen=True)
class Running:
    """libvirt on that side says that the guest runs."""

    role: str

    def reached(self, scene: Scene) -> bool:
        listed = scene.lab.hosts[scene.host(self.role)].virsh("list", "--name", "--state-running")
        return scene.guest.name in listed.split()

    def __str__(self) -> str:
        return f"the guest runs on the {self.role}"


@dataclass(frozen=True)
class Gone:
    """A part has ended: `QEMU of destination`."""

    part: str

    def reached(self, scene: Scene) -> bool:
        return not scene.there_is(self.part)

    def __str__(self) -> str:
        return f"no {self.part} any more"


ACCEPTED = Entry("source", "set-preparing")
PREPARING = Entry("destination", "attach-volumes")
DIRECTORY_MADE = Entry("destination", "create-instance-directory", "done")
PREPARED = Entry("destination", "plug-vifs")
TOLD_PREPARED = Entry("source", "set-migrating")
"""The source has the destination's answer to P3 and P12; a call that was still under way would be repeated."""
ASKING_AGAIN = Entry("source", "pre-live-migration", "failed")
COPYING = Entry("source", "iteration")
SWITCHING = Entry("source", "saw-suspended-migrated")
RESUMED = Entry("destination", "guest-ran-here")
LETTING_GO = FirstOf(
    (
        Entry("source", "detach-remaining-volumes", "failed"),
        Entry("source", "remove-vm-at-source", "failed"),
        Entry("source", "release-resources", "done"),
    )
)
"""The source has let the guest go, or libvirt will not let it."""
ARRIVED = Entry("source", "copy-succeeded")
ROLLING_BACK = Entry("source", "set-rolling-back")
ROLLED_BACK_THERE = Entry("destination", "remove-configuration")
IN_POSTCOPY = Entry("source", "post-copy")
RECOVERING = Entry("source", "recovering")
JOINING = Entry("source", "joining-again")
"""The agent has told both QEMUs to join the stream again."""
ABORTING = Entry("source", "abort-requested")
"""The source's agent is about to ask libvirt."""
ABORTED = Entry("source", "abort-delivered")
"""libvirt has been asked. An agent that dies before may find that the copy is over when it is back."""
LIBVIRT_SAID = Entry("source", "libvirt-said")
"""libvirt's call for the copy has ended with an error, or the agent has given its libvirtd up."""
WAITING = Entry("source", "waiting")
"""The source's agent cannot tell where the guest is, and waits."""
CONNECTING = Entry("destination", "connect-volumes")
ALL_REPORTED = Entry("destination", "update-resources", "done")
