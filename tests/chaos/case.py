"""What a case is: one fault, the moment it strikes, and how the migration must end."""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.faults import Fault
from tests.chaos.moments import Moment

VOLUMES = ("shared", "iscsi")
LOCAL = ("local", "iscsi")
SLOW = 32 << 20
"""bytes/s: the copy of what the guest uses lasts two or three seconds."""
LOCAL_SLOW = 512 << 20
"""bytes/s: for a guest with a local disk, as libvirt counts the whole disk of 1 GiB, holes included."""
POSTCOPY_SLOW = 12 << 20
"""bytes/s: much is left when the fault strikes. The last moment of a post-copy is another case, in which QEMU gives
up: `tests/e2e/test_postcopy_end.py`."""
DATA_SLOW = 64 << 20
"""bytes/s: the data at the beginning of a local disk take a second and a half."""


@dataclass(frozen=True)
class Case:
    """One line below."""

    name: str
    fault: Fault
    at: Moment | None
    """None: the fault itself waits for its moment."""
    ends: str | tuple[str, ...] = "completed"
    """Several only where libvirt's own time limits decide; the world must then be that of the one it was."""
    until: Moment | None = None
    for_s: float = 0.0
    """How long a hang lasts that nobody notices, so that there is no moment to wait for."""
    disks: tuple[str, ...] = VOLUMES
    bandwidth: int | None = None
    """Limit of the copy in bytes/s; None: what suits the disks."""
    guest_dies: bool = False
    """The guest itself is the victim: it must be recorded as stopped where it last ran."""
    postcopy: bool = False
    """The copy is switched to post-copy as soon as it has begun."""
    always: bool = False
    """Also played by `make test`."""

    @property
    def allowed(self) -> tuple[str, ...]:
        """The ends that are right."""
        return (self.ends,) if isinstance(self.ends, str) else self.ends

    @property
    def limit(self) -> int:
        """bytes/s the copy may send."""
        usual = POSTCOPY_SLOW if self.postcopy else LOCAL_SLOW if self.disks == LOCAL else SLOW
        return self.bandwidth or usual
