"""Every case, one line of data each: what goes wrong, after which moment, and how the migration must end.

To add one: a name of its own, a fault (faults.py), a moment (moments.py). `until` is the moment at which the part
works again (None: at once). `ends` also says where the guest must be: `completed` on the destination, else on the
source.
"""

from __future__ import annotations

from tests.chaos.case import DATA_SLOW, LOCAL, Case
from tests.chaos.faults import (
    Abort,
    AgentAt,
    Agents,
    Bus,
    Controller,
    Cut,
    Drop,
    DropReplies,
    Fault,
    FullDisk,
    Held,
    InRollback,
    Libvirtd,
    Qemu,
    Then,
)
from tests.chaos.hangs import HANGS
from tests.chaos.moments import (
    ABORTED,
    ACCEPTED,
    ARRIVED,
    ASKING_AGAIN,
    COPYING,
    DIRECTORY_MADE,
    IN_POSTCOPY,
    JOINING,
    LETTING_GO,
    PREPARED,
    PREPARING,
    RECOVERING,
    RESUMED,
    ROLLED_BACK_THERE,
    ROLLING_BACK,
    SWITCHING,
    TOLD_PREPARED,
    Copied,
    Entry,
    FirstOf,
    InVain,
)

SOURCE, DESTINATION, BOTH = Agents(("source",)), Agents(("destination",)), Agents(("source", "destination"))

AGENTS = [
    Case("source agent dies, accepted", SOURCE, ACCEPTED),
    Case("source agent dies, prepared", SOURCE, PREPARED, always=True),
    Case("source agent dies, copying", SOURCE, COPYING),
    Case("source agent dies, copying a local disk", SOURCE, Copied(16), disks=LOCAL),
    Case("source agent dies, switching over", SOURCE, SWITCHING),
    Case("source agent dies, arrived", SOURCE, ARRIVED, always=True),
    Case("destination agent dies, preparing", DESTINATION, PREPARING),
    Case("destination agent dies, copying", DESTINATION, COPYING, always=True),
    Case("destination agent dies, arrived", DESTINATION, ARRIVED),
    Case("destination agent dies after P8", AgentAt("destination", "P8", "after"), None, disks=LOCAL),
    Case("destination agent dies after P10", AgentAt("destination", "P10", "after"), None),
    Case("both agents die, copying", BOTH, COPYING),
    Case("both agents die, arrived", BOTH, ARRIVED),
]

HAND_OVER = [
    Case("source agent dies after F5", AgentAt("source", "F5", "after"), None),
    Case("source agent dies before F10", AgentAt("source", "F10", "before"), None, disks=LOCAL, always=True),
    Case("source agent dies after F10", AgentAt("source", "F10", "after"), None, disks=LOCAL),
    Case("destination agent dies before F6", AgentAt("destination", "F6", "before"), None),
    Case("destination agent dies after F7", AgentAt("destination", "F7", "after"), None, always=True),
    Case("destination agent dies after F9", AgentAt("destination", "F9", "after"), None),
]

BUS_AND_CONTROLLER = [
    Case("bus dies, preparing", Bus(), PREPARING),
    Case("bus dies, copying", Bus(), COPYING, always=True),
    Case("bus dies, arrived", Bus(), ARRIVED),
    Case("controller dies, copying", Controller(), COPYING, always=True),
]

HYPERVISORS = [
    Case("source libvirtd dies, copying", Libvirtd("source"), COPYING, "failed", always=True),
    Case("source libvirtd dies, arrived", Libvirtd("source"), ARRIVED),
    Case("destination libvirtd dies, preparing", Libvirtd("destination"), PREPARING, until=ASKING_AGAIN),
    Case(
        "destination libvirtd dies, prepared",
        Libvirtd("destination"),
        TOLD_PREPARED,
        "failed",
        until=ROLLING_BACK,
    ),
    Case("destination libvirtd dies, copying", Libvirtd("destination"), COPYING, "failed", always=True),
    Case(
        "destination libvirtd dies, resumed, no file",
        Libvirtd("destination"),
        RESUMED,
        disks=("iscsi",),
        always=True,
    ),
    Case("control cut, resumed, no file", Cut("control"), RESUMED, until=ARRIVED, disks=("iscsi",)),
    Case("destination libvirtd dies, arrived", Libvirtd("destination"), ARRIVED),
    Case("destination QEMU dies, copying", Qemu("destination"), COPYING, "failed", always=True),
    Case("destination QEMU dies, arrived", Qemu("destination"), ARRIVED, guest_dies=True),
    Case("guest's QEMU dies, copying", Qemu("source"), COPYING, "failed", guest_dies=True, always=True),
]

KEEPALIVE = ("completed", "failed")
"""Failed: the copy lasted longer than libvirt's keepalive. That ends a connection whose answers are lost, and the
copy with it."""
LINKS = [
    Case("stream cut, copying", Cut("stream"), COPYING, "failed", always=True),
    Case("stream cut, copying a local disk", Cut("stream"), Copied(16), "failed", disks=LOCAL, bandwidth=DATA_SLOW),
    Case("stream drops, copying", Drop("stream"), COPYING, until=InVain(3, "stream")),
    Case("control cut, copying", Cut("control"), COPYING, "failed"),
    Case("control drops, copying", Drop("control"), COPYING, KEEPALIVE, until=FirstOf((SWITCHING, ROLLING_BACK))),
    Case(
        "control replies lost, no file",
        DropReplies("control"),
        COPYING,
        KEEPALIVE,
        until=FirstOf((ARRIVED, ROLLING_BACK)),
        disks=("iscsi",),
    ),
    Case("bus of source cut, copying", Cut("bus of source"), COPYING, until=RESUMED),
    Case("bus of source drops, copying", Drop("bus of source"), COPYING, until=RESUMED),
    Case(
        "bus of destination cut, preparing",
        Held("destination", "connect-volumes", Cut("bus of destination")),
        Entry("destination", "connect-volumes", "failed"),
        until=Entry("source", "pre-live-migration", "failed"),
    ),
    Case("bus of destination drops, copying", Drop("bus of destination"), COPYING, until=RESUMED),
    Case("storage of source cut, copying", Cut("storage of source"), COPYING),
    Case(
        "storage of source drops, copying", Drop("storage of source"), COPYING, until=InVain(3, "storage of source")
    ),
    Case(
        "storage of destination cut, preparing",
        Held("destination", "P8", Cut("storage of destination")),
        Entry("destination", "create-instance-directory", "failed"),
        until=Entry("destination", "connect-volumes", "failed"),
    ),
    Case(
        "storage of destination drops, copying",
        Drop("storage of destination"),
        COPYING,
        until=InVain(3, "storage of destination"),
    ),
]

DISKS = [
    Case(
        "destination disk full before the copy",
        FullDisk(),
        DIRECTORY_MADE,
        "failed",
        until=ROLLING_BACK,
        disks=LOCAL,
        always=True,
    ),
    Case(
        "destination disk full, copying",
        FullDisk(),
        Copied(16),
        "failed",
        until=ROLLING_BACK,
        disks=LOCAL,
        bandwidth=DATA_SLOW,
    ),
]

CUT = Then(Cut("stream"), IN_POSTCOPY, Cut("second stream"))
"""Both networks that could carry a guest's memory."""
POST_COPY = [
    Case("post-copy, nothing goes wrong", Fault(), IN_POSTCOPY, postcopy=True),
    Case("post-copy, every stream cut", CUT, IN_POSTCOPY, until=JOINING, postcopy=True, always=True),
    Case(
        "post-copy, stream cut for good, a second address", Cut("stream"), IN_POSTCOPY, until=ARRIVED, postcopy=True
    ),
    Case("post-copy, stream drops", Drop("stream"), IN_POSTCOPY, until=RECOVERING, postcopy=True),
    Case("post-copy, control cut", Cut("control"), IN_POSTCOPY, until=ARRIVED, postcopy=True),
    Case("post-copy, source agent dies", SOURCE, IN_POSTCOPY, postcopy=True),
    Case("post-copy, destination agent dies", DESTINATION, IN_POSTCOPY, postcopy=True),
    Case("post-copy, both agents die", BOTH, IN_POSTCOPY, postcopy=True),
    Case("post-copy, bus dies", Bus(), IN_POSTCOPY, postcopy=True),
    Case(
        "post-copy, stream cut, then both agents die",
        Then(CUT, RECOVERING, BOTH),
        IN_POSTCOPY,
        postcopy=True,
        always=True,
    ),
    Case("post-copy, source libvirtd dies", Libvirtd("source"), IN_POSTCOPY, postcopy=True),
    Case("post-copy, destination libvirtd dies", Libvirtd("destination"), IN_POSTCOPY, postcopy=True),
    Case(
        "post-copy, source QEMU dies, then libvirtd is restarted",
        Then(Qemu("source"), LETTING_GO, Libvirtd("source")),
        IN_POSTCOPY,
        guest_dies=True,
        postcopy=True,
    ),
    Case("post-copy, destination QEMU dies", Qemu("destination"), IN_POSTCOPY, guest_dies=True, postcopy=True),
]

ABORTS = [
    Case("abort, then source agent dies", Then(Abort(), ABORTED, SOURCE), COPYING, "cancelled"),
    Case("abort, then destination agent dies", Then(Abort(), ABORTED, DESTINATION), COPYING, "cancelled"),
    Case("abort, then both agents die", Then(Abort(), ABORTED, BOTH), COPYING, "cancelled"),
    Case("abort, then bus dies", Then(Abort(), ABORTED, Bus()), COPYING, "cancelled"),
    Case(
        "stream drops, then abort",
        Then(Drop("stream"), InVain(2, "stream"), Abort()),
        COPYING,
        "cancelled",
        until=ROLLING_BACK,
    ),
]

ROLLBACKS = [
    Case("rollback: source agent dies after R4", InRollback(AgentAt("source", "R4", "after")), None, "failed"),
    Case(
        "rollback: source agent dies before R8",
        InRollback(AgentAt("source", "R8", "before")),
        None,
        "failed",
        always=True,
    ),
    Case(
        "rollback: destination agent dies before R5",
        InRollback(AgentAt("destination", "R5", "before")),
        None,
        "failed",
    ),
    Case(
        "rollback: destination agent dies after R7",
        InRollback(AgentAt("destination", "R7", "after")),
        None,
        "failed",
        disks=LOCAL,
    ),
    Case("rollback: both agents die", InRollback(BOTH), ROLLING_BACK, "failed"),
    Case("rollback: bus dies", InRollback(Bus()), ROLLING_BACK, "failed"),
    Case("rollback: destination libvirtd dies", InRollback(Libvirtd("destination")), ROLLED_BACK_THERE, "failed"),
]

CASES = (
    AGENTS + HAND_OVER + BUS_AND_CONTROLLER + HYPERVISORS + LINKS + DISKS + POST_COPY + HANGS + ABORTS + ROLLBACKS
)
