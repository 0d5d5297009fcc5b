"""The cases in which a part hangs: it keeps its sockets, answers nobody, and goes on later.

Healed after a moment that shows that somebody has noticed; where nobody does, after a while (`for_s`). A step that
is to notice, and would be over in an instant, is held back until the part hangs. The patience that matters: agents
have 5 s with each other and with tgt, 10 s with Open vSwitch, 25 s with their libvirtd; a libvirtd has 30 s with a
peer or client.
"""

from __future__ import annotations

from tests.chaos.case import Case
from tests.chaos.faults import (
    Abort,
    Hang,
    Held,
    InRollback,
    Then,
    Together,
)
from tests.chaos.moments import (
    ABORTING,
    ALL_REPORTED,
    ARRIVED,
    ASKING_AGAIN,
    COPYING,
    IN_POSTCOPY,
    LETTING_GO,
    LIBVIRT_SAID,
    PREPARING,
    RESUMED,
    SWITCHING,
    WAITING,
    Entry,
    FirstOf,
    Gone,
    Running,
)

SHORT_S, LONG_S = 3.0, 12.0
"""Less than anybody's patience; more than the agents', but not libvirt's."""
KEPT_ALIVE = ("failed", "completed")
"""A libvirtd takes a peer or client for dead that was silent for 25 to 30 s. Which of two gives up first, and
whether the answer was on its way, is a race of their timers; both ends are right."""

AGENT_HANGS = [
    Case("source agent hangs, copying", Hang("agent of source"), COPYING, until=RESUMED),
    Case(
        "destination agent hangs, preparing",
        Held("destination", "connect-volumes", Hang("agent of destination")),
        Entry("destination", "connect-volumes", "failed"),
        until=ASKING_AGAIN,
    ),
    Case("destination agent hangs, copying", Hang("agent of destination"), COPYING, until=WAITING),
    Case(
        "destination agent hangs, arrived",
        Hang("agent of destination"),
        ARRIVED,
        until=LETTING_GO,
    ),
    Case(
        "both agents hang, copying",
        Together((Hang("agent of source"), Hang("agent of destination"))),
        COPYING,
        until=Running("destination"),
    ),
    Case("controller hangs, copying", Hang("controller"), COPYING, until=ARRIVED),
]

BUS_HANGS = [
    Case(
        "bus hangs, preparing",
        Held("destination", "connect-volumes", Hang("nats-server")),
        Entry("destination", "connect-volumes", "failed"),
        until=ASKING_AGAIN,
    ),
    Case("bus hangs, copying", Hang("nats-server"), COPYING, until=WAITING),
    Case(
        "bus hangs, arrived",
        Hang("nats-server"),
        ARRIVED,
        until=LETTING_GO,
    ),
    Case("bus hangs for a moment, copying", Hang("nats-server"), COPYING, for_s=SHORT_S),
]

LIBVIRTD_HANGS = [
    Case("source libvirtd hangs for a moment, copying", Hang("libvirtd of source"), COPYING, for_s=SHORT_S),
    Case("source libvirtd hangs, copying", Hang("libvirtd of source"), COPYING, KEPT_ALIVE, until=LIBVIRT_SAID),
    Case(
        "source libvirtd hangs, copying, and the destination's gives up",
        Hang("libvirtd of source"),
        COPYING,
        "failed",
        until=Gone("QEMU of destination"),
    ),
    Case(
        "source libvirtd hangs for a moment, switching over", Hang("libvirtd of source"), SWITCHING, for_s=SHORT_S
    ),
    Case(
        "source libvirtd hangs, arrived",
        Hang("libvirtd of source"),
        ARRIVED,
        until=LETTING_GO,
    ),
    Case(
        "destination libvirtd hangs for a moment, preparing",
        Hang("libvirtd of destination"),
        PREPARING,
        for_s=SHORT_S,
    ),
    Case(
        "destination libvirtd hangs, preparing",
        Held("destination", "driver-pre-live-migration", Hang("libvirtd of destination")),
        Entry("destination", "driver-pre-live-migration", "failed"),
        until=Entry("destination", "driver-pre-live-migration", "failed", times=2),
    ),
    Case(
        "destination libvirtd hangs for a moment, copying", Hang("libvirtd of destination"), COPYING, for_s=SHORT_S
    ),
    Case(
        "destination libvirtd hangs, copying",
        Hang("libvirtd of destination"),
        COPYING,
        "failed",
        until=LIBVIRT_SAID,
    ),
    Case(
        "destination libvirtd hangs, switching over, no file",
        Hang("libvirtd of destination"),
        SWITCHING,
        KEPT_ALIVE,
        until=LIBVIRT_SAID,
        disks=("iscsi",),
    ),
    Case(
        "destination libvirtd hangs, arrived",
        Hang("libvirtd of destination"),
        ARRIVED,
        until=LETTING_GO,
    ),
    Case(
        "both libvirtds hang for a moment, copying",
        Together((Hang("libvirtd of source"), Hang("libvirtd of destination"))),
        COPYING,
        for_s=SHORT_S,
    ),
    Case(
        "both libvirtds hang, copying",
        Together((Hang("libvirtd of source"), Hang("libvirtd of destination"))),
        COPYING,
        KEPT_ALIVE,
        until=LIBVIRT_SAID,
    ),
]

PARTS_HANG = [
    Case(
        "ovsdb-server of destination hangs, preparing",
        Held("destination", "plug-vifs", Hang("ovsdb-server of destination")),
        Entry("destination", "plug-vifs", "failed"),
        until=Entry("destination", "plug-vifs", "failed", times=2),
    ),
    Case(
        "ovsdb-server of destination hangs for long, preparing",
        Held("destination", "plug-vifs", Hang("ovsdb-server of destination")),
        Entry("destination", "plug-vifs", "failed"),
        for_s=45.0,  # P10 is tried again and again, each try bounded: P3 has 600 s
    ),
    Case(
        "ovs-vswitchd of destination hangs, preparing",
        Held("destination", "plug-vifs", Hang("ovs-vswitchd of destination")),
        Entry("destination", "plug-vifs", "failed"),
        until=Entry("destination", "plug-vifs", "failed", times=2),
    ),
    Case(
        "ovsdb-server of destination hangs, arrived",
        Hang("ovsdb-server of destination"),
        RESUMED,
        until=FirstOf((ALL_REPORTED, Entry("destination", "activate-bindings", "failed"))),
    ),
    Case(
        "ovs-vswitchd of destination hangs, arrived",
        Hang("ovs-vswitchd of destination"),
        RESUMED,
        until=FirstOf((ALL_REPORTED, Entry("destination", "activate-bindings", "failed"))),
    ),
    Case(
        "ovsdb-server of source hangs, arrived",
        Held("source", "remove-vifs-at-source", Hang("ovsdb-server of source")),
        Entry("source", "remove-vifs-at-source", "failed"),
        until=Entry("source", "remove-vifs-at-source", "failed", times=2),
    ),
    Case(
        "ovs-vswitchd of source hangs, arrived",
        Held("source", "remove-vifs-at-source", Hang("ovs-vswitchd of source")),
        Entry("source", "remove-vifs-at-source", "failed"),
        until=FirstOf(  # the port may be swept before the hang: then nothing waits for ovs-vswitchd
            (
                Entry("source", "remove-vifs-at-source", "failed", times=2),
                Entry("source", "release-resources", "done"),
            )
        ),
    ),
    Case(
        "tgtd hangs, preparing",
        Held("destination", "attach-volumes", Hang("tgtd")),
        Entry("destination", "attach-volumes", "failed"),
        until=Entry("destination", "attach-volumes", "failed", times=2),
    ),
    Case("tgtd hangs, copying", Hang("tgtd"), COPYING, for_s=SHORT_S),
    Case(
        "tgtd hangs, arrived",
        Held("source", "detach-volumes", Hang("tgtd")),
        Entry("source", "detach-volumes", "failed"),
        until=Entry("source", "detach-volumes", "failed", times=2),
    ),
    Case("source QEMU hangs for a moment, copying", Hang("QEMU of source"), COPYING, for_s=SHORT_S),
    Case("source QEMU hangs, copying", Hang("QEMU of source"), COPYING, for_s=LONG_S),
    Case("destination QEMU hangs, copying", Hang("QEMU of destination"), COPYING, for_s=LONG_S),
    Case("destination QEMU hangs, arrived", Hang("QEMU of destination"), ARRIVED, for_s=LONG_S),
]

POST_COPY_HANGS = [
    Case("post-copy, bus hangs", Hang("nats-server"), IN_POSTCOPY, until=WAITING, postcopy=True),
    Case(
        "post-copy, source libvirtd hangs",
        Hang("libvirtd of source"),
        IN_POSTCOPY,
        until=LIBVIRT_SAID,
        postcopy=True,
    ),
    Case(
        "post-copy, destination libvirtd hangs",
        Hang("libvirtd of destination"),
        IN_POSTCOPY,
        until=LIBVIRT_SAID,
        postcopy=True,
    ),
    Case("post-copy, source QEMU hangs", Hang("QEMU of source"), IN_POSTCOPY, for_s=LONG_S, postcopy=True),
    Case(
        "post-copy, destination QEMU hangs", Hang("QEMU of destination"), IN_POSTCOPY, for_s=LONG_S, postcopy=True
    ),
]

ABORT_HANGS = [
    Case(
        "source libvirtd hangs, then abort",
        Then(Hang("libvirtd of source"), COPYING, Abort()),
        COPYING,
        "cancelled",
        until=ABORTING,
    ),
    Case(
        "destination libvirtd hangs, then abort",
        Then(Hang("libvirtd of destination"), COPYING, Abort()),
        COPYING,
        "cancelled",
        until=LIBVIRT_SAID,
    ),
    Case(
        "abort, then bus hangs",
        Then(Abort(), ABORTING, Hang("nats-server")),
        COPYING,
        "cancelled",
        until=FirstOf(
            (
                Entry("source", "ask-both-hypervisors", "failed"),
                Entry("source", "waiting-dhost-reports-R7"),
            )
        ),
    ),
]

ROLLBACK_HANGS = [
    Case(
        "rollback: bus hangs",
        InRollback(Held("source", "R3", Hang("nats-server"))),
        Entry("source", "remove-volume-connection", "failed"),
        "failed",
        until=Entry("source", "cast-rollback", "done"),
    ),
    Case(
        "rollback: destination libvirtd hangs",
        InRollback(Held("destination", "R5", Hang("libvirtd of destination"))),
        Entry("destination", "remove-configuration", "failed"),
        "failed",
        until=Entry("destination", "remove-configuration", "failed", times=2),
    ),
]

HANGS = AGENT_HANGS + BUS_HANGS + LIBVIRTD_HANGS + PARTS_HANG + POST_COPY_HANGS + ABORT_HANGS + ROLLBACK_HANGS
