"""The named policies: what `sterna migrate --policy NAME` means. Every number is justified beside it."""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.model import Value


class May(StrEnum):
    """What is allowed if a copy does not converge, beyond the allowed downtime."""

    THROTTLE = "throttle"
    """Slow its vCPUs down."""
    POSTCOPY = "postcopy"
    """Let it run on the destination before all its memory is there: a broken link then stops it for a while."""
    PAUSE = "pause"
    """Stop it until the rest is copied, however long that takes within the deadline."""


class Accept(StrEnum):
    """Risks that Sterna cannot exclude, and a user may accept."""

    CPU = "cpu"
    """The guest sees its host's CPU as it is, and the destination's is another one."""


class Policy(Value):
    """An objective's defaults."""

    max_downtime_ms: int
    first_downtime_ms: int
    """The limit the copy starts with; raised to `max_downtime_ms` only for a guest that does not converge below."""
    may: frozenset[May] = frozenset()
    link_share: float = 1.0
    """How much of the link it takes where its speed is known, 0..1."""
    patience_s: float = 40.0
    """How long no new minimum of remaining data is a stall."""


POLICIES: dict[str, Policy] = {
    "gentle": Policy(
        # QEMU's own default limit: what an untuned migration would do to the guest at most.
        max_downtime_ms=300,
        # The lab's idle and lightly loaded guests switched over in 40-115 ms (field notes): many need no more.
        first_downtime_ms=50,
        # Rather no migration than a guest that notices one.
        may=frozenset(),
        # As much is left to the neighbours on the link as is taken.
        link_share=0.5,
        # KubeVirt's stall detector (VEP 248).
        patience_s=40.0,
    ),
    "default": Policy(
        # Nova's and VDSM's limit: what two clouds of busy guests settled on.
        max_downtime_ms=500,
        # Where VDSM's schedules begin.
        first_downtime_ms=100,
        # Slows a guest for a while and loses nothing; the other two need the owner's word.
        may=frozenset({May.THROTTLE}),
        # A copy on half the link takes twice as long, and is hopeless at half the dirty rate.
        link_share=1.0,
        # As above.
        patience_s=40.0,
    ),
    "urgent": Policy(
        # TCP connections survive 2 s; KubeVirt allows 900 ms, VDSM's policy for very large VMs 5 s.
        max_downtime_ms=2000,
        # `default`'s most is where it starts: time matters more than half a second of downtime.
        first_downtime_ms=500,
        # The host is being lost: all is better than staying.
        may=frozenset(May),
        link_share=1.0,
        # As often as VDSM looks: no time to see whether a burst of writes is over.
        patience_s=10.0,
    ),
}
DEFAULT = "default"
