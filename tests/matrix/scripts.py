"""What the cases are made of: kinds of guests, and scripts (what is meant to happen to them)."""

from __future__ import annotations

from typing import Any

from sterna.domain.forecast import Load
from sterna.sim.world.things import GIB, MIB

BUSY: dict[str, Any] = {"dirty_bytes_per_s": 80 * MIB, "working_set_bytes": GIB}
"""A guest that writes more than `SLOW` carries, all over its memory."""
SLOW = {"bandwidth_bytes_s": 64 * MIB}
"""A copy slow enough that much is left to be sent after a switch."""
KINDS: dict[str, dict[str, Any]] = {
    "full": {"disks": ("shared", "local", "iscsi"), "autostart": True},
    "shared": {"disks": ("shared",)},
    "transient": {"disks": ("shared", "local", "iscsi"), "persistent": False},
    "plain": {"disks": ("local", "iscsi"), "autostart": False},
    "volumes": {"disks": ("block", "iscsi", "block")},
    "postcopy": {"disks": ("shared", "local", "iscsi", "block")},
    "postcopy-transient": {"disks": ("shared", "iscsi"), "persistent": False},
    "secrets": {"disks": ("luks", "chap")},
    "large": {"disks": ("shared",), "memory_bytes": 8 * GIB},
    "raised": {"disks": ("shared", "local"), "dirty_bytes_per_s": 200 * MIB},
    "throttled": {"disks": ("shared",), **BUSY},
    "paused": {"disks": ("shared", "iscsi"), **BUSY},
    "hurried": {"disks": ("shared", "local"), **BUSY},
    "given-up": {"disks": ("local", "iscsi"), **BUSY},
}
WISHES: dict[str, dict[str, Any]] = {
    "full": {},
    "shared": {"policy": "gentle"},
    "transient": {"policy": "urgent"},
    "plain": {"max_downtime_ms": 80, "finish_within_s": 600, "may": []},
    "volumes": {"may": ["pause"], "bandwidth_bytes_s": 400 * MIB},
    "postcopy": {"may": ["postcopy"], **SLOW},
    "postcopy-transient": {"may": ["postcopy", "throttle"], "finish_within_s": 900, **SLOW},
    "secrets": {"policy": "gentle", "may": ["postcopy"], "max_downtime_ms": 1000},
    "large": {"finish_within_s": 900},
    "raised": {"may": [], "max_downtime_ms": 3000, **SLOW},
    "throttled": SLOW,
    "paused": {"may": ["pause"], "finish_within_s": 60, **SLOW},
    "hurried": {"may": ["postcopy"], "finish_within_s": 60, **SLOW},
    "given-up": {"may": [], "finish_within_s": 45, **SLOW},
}
"""What its user asks for with this kind of guest: the body of the request to the REST API."""
PLANNED = {"large": Load(memory_bytes=8 * GIB, dirty_bytes=40 * MIB, dirty_period_s=1)}
"""Kinds of guests whose load a plan has measured before."""
POSTCOPY = tuple(kind for kind in KINDS if kind.startswith("postcopy"))
STEERED = ("raised", "throttled", "paused", "hurried", "given-up")
"""Guests whose copies do not converge by themselves, one for each thing that can be done about it."""
SWITCHED = ("world: host1 job iteration 1 #1", "switch")
IN_POSTCOPY = "world: host1 job in post-copy #1"
SCRIPTS: dict[str, tuple[tuple[str, str], ...]] = {
    "forward": (),
    "refused-at-copy": (("host1: copy before #1", "permanent"),),
    "failed-copy": (("world: host1 job iteration 1 #1", "link-stream-5s"),),
    "aborted-copy": (("world: host1 job iteration 1 #1", "abort"),),
    "lost-finish": (("world: host1 job finished #1", "link-control-5s"),),
    "aborted-at-P2": (("host1: snapshot-volumes before #1", "abort"),),
    "turned-while-copying": (
        ("world: host1 job iteration 1 #1", "kill-both-3s"),
        ("host1: copy before #2", "permanent"),
    ),
    "copied-without-agents": (("world: host1 job iteration 1 #1", "kill-both-3s"),),
    "failed-at-P10": (("host2: plug-vifs after #1", "permanent"),),
    "deferred-R3": (
        ("host1: copy before #1", "permanent"),
        ("host1: journal intent:remove-volume-connection after #1", "bus-away-30s"),
    ),
    "abort-outlived": (
        ("host2: create-instance-directory before #1", "abort"),
        ("client: abort accepted #1", "kill-both-3s"),
    ),
    "ended-unseen": (
        ("world: host1 job iteration 1 #1", "kill-host1-20s"),
        ("world: host2 domain running (migrated) #1", "qemu-host2"),
        ("world: host1 job finished #1", "link-control-5s"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host2-in-1s"),
    ),
    "ended-unseen-by-the-next-life": (
        ("world: host1 job started #1", "kill-host2-0.2s"),
        ("world: host1 job iteration 1 #1", "kill-host1-20s"),
        ("world: host2 domain running (migrated) #1", "qemu-host2"),
        ("world: host1 job finished #1", "link-control-5s"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host2-in-1s"),
    ),
    "handed-over-unseen": (
        ("world: host1 job iteration 1 #1", "kill-host2-20s"),
        ("world: host1 job completed #1", "qemu-host2"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host1-in-1s"),
    ),
}
"""Name -> the faults that make it what it is."""
THROUGH_CONTROLLER: dict[str, tuple[tuple[str, str], ...]] = {
    "asked-of-the-controller": (),
    "asked-of-the-controller-and-failed": (("host1: copy before #1", "permanent"),),
    "asked-of-the-controller-and-aborted": (("world: host1 job iteration 1 #1", "abort"),),
}
"""The same through the REST API's own doorstep: a controller admits, asks the source, and keeps the records."""
FOR_POSTCOPY: dict[str, tuple[tuple[str, str], ...]] = {
    "forward": (),
    "switched": (SWITCHED,),
    "switched-and-cut": (SWITCHED, (IN_POSTCOPY, "link-stream-20s")),
    "switched-and-source-lost": (SWITCHED, (IN_POSTCOPY, "qemu-host1")),
    "switched-and-destination-lost": (SWITCHED, (IN_POSTCOPY, "qemu-host2")),
}
"""What is played with guests that may be switched to post-copy."""
FOR_STEERED: dict[str, tuple[tuple[str, str], ...]] = {"steered": ()}
FOR_HURRIED: dict[str, tuple[tuple[str, str], ...]] = {"switched-in-time": ()}
"""What is played with guests whose copies are steered; nobody but the agent itself asks for post-copy."""
COMPLETED = (
    "steered",
    "switched-in-time",
    "switched",
    "switched-and-cut",
    "asked-of-the-controller",
    "forward",
    "copied-without-agents",
    "lost-finish",
    "turned-while-copying",
)


def expected(kind: str, script: str) -> str:
    """How the script ends when no other fault strikes."""
    if script == "turned-while-copying" and kind == "large":
        return "stayed"  # its copy takes longer than the agents are dead
    if "unseen" in script or script.endswith("-lost"):
        return "ended at host2"
    return "completed" if script in COMPLETED and kind != "given-up" else "stayed"


def planned(script: str) -> tuple[tuple[str, str], ...]:
    """The faults that make this script what it is."""
    return (SCRIPTS | THROUGH_CONTROLLER | FOR_POSTCOPY | FOR_STEERED | FOR_HURRIED)[script]


def scripts_for(kind: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """The scripts that are played with this kind of guest."""
    if kind in STEERED:
        return FOR_HURRIED if kind == "hurried" else FOR_STEERED
    return FOR_POSTCOPY if kind in POSTCOPY else SCRIPTS
